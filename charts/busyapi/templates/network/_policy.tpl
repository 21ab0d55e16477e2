{{/* Parts of the NetworkPolicies. An empty list of peers means everyone, so rules without peers are
left out. */}}

{{- define "busyapi.policyMetadata" -}}
{{- $root := index . 0 -}}
name: {{ include "busyapi.fullname" $root }}-{{ index . 1 }}
namespace: {{ include "busyapi.namespace" $root }}
labels:
  {{- include "busyapi.labels" . | nindent 2 }}
{{- end }}

{{/* Pods of this release's component: (list $ "flusher"). */}}
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
    {{- include "busyapi.peer" (list . "valkey") | nindent 4 }}
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

{{/* Prometheus, to one port: (list $ "metrics"). */}}
{{- define "busyapi.ingressMetrics" -}}
{{- with (index . 0).Values.networkPolicy.metricsFrom -}}
- from:
    {{- toYaml . | nindent 4 }}
  ports:
    - port: {{ index $ 1 }}
{{- end }}
{{- end }}
