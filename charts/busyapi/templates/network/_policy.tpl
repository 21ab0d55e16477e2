{{/* Parts of the NetworkPolicies. An empty list of peers means everyone, so rules without peers are
left out. */}}

{{- define "busyapi.policyMetadata" -}}
{{- $root := .root -}}
name: {{ include "busyapi.fullname" $root }}-{{ .component }}
namespace: {{ include "busyapi.namespace" $root }}
labels:
  {{- include "busyapi.labels" . | nindent 2 }}
{{- end }}

{{/* The pods of a component of this release. Arguments: root, component. */}}
{{- define "busyapi.peer" -}}
- podSelector:
    matchLabels:
      {{- include "busyapi.selectorLabels" . | nindent 6 }}
{{- end }}

{{- define "busyapi.egressDns" -}}
- ports:
    - port: 53
      protocol: UDP
    - port: 53
      protocol: TCP
{{- end }}

{{- define "busyapi.egressRedis" -}}
{{- if .Values.valkey.enabled -}}
- to:
    {{- include "busyapi.peer" (dict "root" . "component" "valkey") | nindent 4 }}
  ports:
    - port: redis
{{- else -}}
- ports:
    {{- range .Values.networkPolicy.externalRedis.ports }}
    - port: {{ . }}
    {{- end }}
  {{- with .Values.networkPolicy.externalRedis.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Allow Prometheus to connect to a port. Arguments: root, port. */}}
{{- define "busyapi.ingressMetrics" -}}
{{- with .root.Values.networkPolicy.metricsFrom -}}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: {{ $.port }}
{{- end }}
{{- end }}
