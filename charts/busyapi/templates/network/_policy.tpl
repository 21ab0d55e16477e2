{{/* Parts of the NetworkPolicies. An empty list of peers means everyone, so rules without peers are
left out. */}}

{{/* The pods of a component of this release. Arguments: root, component. */}}
{{- define "busyapi.peer" -}}
- podSelector:
    matchLabels:
      {{- include "busyapi.selectorLabels" . | nindent 6 }}
{{- end }}

{{/* By default DNS is what kubeadm, k3s and the managed clusters call kube-dns, the node-local cache in
front of it, which is no pod, and OpenShift's, which listens on 5353: policies see the port of the pod. */}}
{{- define "busyapi.egressDns" -}}
{{- $labels := "matchLabels" }}
{{- $system := dict "namespaceSelector" (dict $labels (dict "kubernetes.io/metadata.name" "kube-system")) "podSelector" (dict $labels (dict "k8s-app" "kube-dns")) }}
{{- $cache := dict "ipBlock" (dict "cidr" "169.254.20.10/32") }}
{{- $openshift := dict "namespaceSelector" (dict $labels (dict "kubernetes.io/metadata.name" "openshift-dns")) }}
{{- $dnsTo := .Values.networkPolicy.dnsTo }}
{{- range $port, $to := dict "53" ($dnsTo | default (list $system $cache)) "5353" ($dnsTo | default (list $openshift)) }}
- ports:
    - port: {{ $port }}
      protocol: UDP
    - port: {{ $port }}
      protocol: TCP
  to:
    {{- toYaml $to | nindent 4 }}
{{- end }}
{{- end }}

{{/* The ports of the external Redis, in order. The servers that Sentinels name usually have 6379. */}}
{{- define "busyapi.redisPorts" -}}
{{- $external := .Values.externalRedis }}
{{- $ports := list }}
{{- range $external.servers | default (list $external) }}
{{- if eq $external.mode "standalone" }}
{{- $ports = append $ports (.port | default $external.port | int64) }}
{{- end }}
{{- range .hosts }}
{{- $ports = append $ports (regexFind ":[0-9]+$" . | trimPrefix ":" | default (ternary "26379" "6379" (eq $external.mode "sentinel")) | int64) }}
{{- end }}
{{- end }}
{{- if eq $external.mode "sentinel" }}{{ $ports = append $ports 6379 }}{{ end }}
{{- range $ports | uniq }}
- port: {{ . | int64 }}
{{- end }}
{{- end }}

{{- define "busyapi.egressRedis" -}}
{{- if .Values.valkey.enabled -}}
- to:
    {{- include "busyapi.peer" (dict "root" . "component" "valkey") | nindent 4 }}
  ports:
    - port: redis
    {{- if include "busyapi.hasReplicas" . }}
    - port: sentinel
    {{- end }}
{{- else -}}
- ports:
    {{- range .Values.networkPolicy.externalRedis.ports }}
    - port: {{ . | int64 }}
    {{- else }}
    {{- include "busyapi.redisPorts" $ | nindent 4 }}
    {{- end }}
  {{- with .Values.networkPolicy.externalRedis.to }}
  to:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Allow connections to the provider of JWTs, by the port of its URL. */}}
{{- define "busyapi.egressJwt" -}}
{{- if hasPrefix "https://" .Values.auth.jwt.keys }}
{{- $port := (urlParse .Values.auth.jwt.keys).host | regexFind ":[0-9]+$" | trimPrefix ":" | default "443" }}
- ports:
    - port: {{ $port | int64 }}
  {{- with .Values.networkPolicy.jwtTo }}
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
