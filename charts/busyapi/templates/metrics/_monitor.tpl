{{/* The endpoint of a ServiceMonitor or PodMonitor. Arguments: monitor, port. */}}
{{- define "busyapi.monitorEndpoint" -}}
- port: {{ .port }}
  path: /metrics
  {{- with .monitor }}
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

{{/* The metadata of a monitor. Arguments: root, monitor, component, name. */}}
{{- define "busyapi.monitorMetadata" -}}
{{- $root := .root -}}
name: {{ .name }}
namespace: {{ include "busyapi.namespace" $root }}
labels:
  {{- include "busyapi.labels" (dict "root" $root "component" .component) | nindent 2 }}
  {{- with .monitor.labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with .monitor.annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
