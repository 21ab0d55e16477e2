{{/* The endpoint of a ServiceMonitor or PodMonitor. Arguments: monitor, port. */}}
{{- define "busyapi.monitorEndpoint" -}}
- port: {{ .port }}
  path: /metrics
  {{- with .monitor }}
  interval: {{ .interval | quote }}
  {{- with .scrapeTimeout }}
  scrapeTimeout: {{ . | quote }}
  {{- end }}
  # Rules and dashboards distinguish releases by this label.
  relabelings:
    - sourceLabels: [__meta_kubernetes_pod_label_app_kubernetes_io_instance]
      targetLabel: release
    {{- with .relabelings }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- with .metricRelabelings }}
  metricRelabelings:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- end }}
{{- end }}
