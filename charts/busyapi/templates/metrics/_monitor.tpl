{{/* One component's endpoint of a ServiceMonitor or PodMonitor: (list monitor "port"). */}}
{{- define "busyapi.monitorEndpoint" -}}
- port: {{ index . 1 }}
  path: /metrics
  {{- with index . 0 }}
  interval: {{ .interval }}
  {{- with .scrapeTimeout }}
  scrapeTimeout: {{ . }}
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

{{/* Its metadata: (list $ monitor "component" "name"). */}}
{{- define "busyapi.monitorMetadata" -}}
{{- $root := index . 0 -}}
name: {{ index . 3 }}
namespace: {{ include "busyapi.namespace" $root }}
labels:
  {{- include "busyapi.labels" (list $root (index . 2)) | nindent 2 }}
  {{- with (index . 1).labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with (index . 1).annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
