{{/* Parts of the NetworkPolicies. An empty list of peers means everyone, so rules without peers are
left out. */}}

{{/* The pods of a component of this release. Arguments: root, component. */}}
{{- define "busyapi.peer" -}}
- podSelector:
    matchLabels:
      {{- include "busyapi.selectorLabels" . | nindent 6 }}
{{- end }}

{{/* By default DNS may be anywhere: a node-local cache (169.254.20.10) and IPv6 are no pods. OpenShift's
DNS pods listen on 5353, and policies see the port of the pod. */}}
{{- define "busyapi.egressDns" -}}
{{- $openshift := dict "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" "openshift-dns")) }}
{{- range $port, $to := dict "53" .Values.networkPolicy.dnsTo "5353" (.Values.networkPolicy.dnsTo | default (list $openshift)) }}
- ports:
    - port: {{ $port }}
      protocol: UDP
    - port: {{ $port }}
      protocol: TCP
  {{- with $to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
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
    - port: {{ . | int64 }}
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
