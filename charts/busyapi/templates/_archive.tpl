{{/* The flushers' port for API pods: its shared secret and its certificates. Processes read all of them again
when they change, so that they can be rotated. */}}

{{/* The shared secret: made once by the chart, or an existing one. */}}
{{- define "busyapi.archiveSecret" -}}
{{- .Values.flusher.auth.existingSecret | default (printf "%s-archive" (include "busyapi.fullname" .)) }}
{{- end }}

{{/* The URL of the port. {partition} is for the API. */}}
{{- define "busyapi.flusherUrls" -}}
{{- $fullname := include "busyapi.fullname" . }}
{{- ternary "http" "https" (empty .Values.archivePort.tls.existingSecret) }}://{{ $fullname }}-flusher-{partition}.{{ $fullname }}-flusher:9101
{{- end }}

{{/* Each role has the key of its own certificate, and only the CA of the other one.
Arguments: root, role. */}}
{{- define "busyapi.archiveTlsSources" -}}
{{- $tls := .root.Values.archivePort.tls }}
{{- $own := $tls.clientSecret }}
{{- $other := $tls.existingSecret }}
{{- if eq .role "flusher" }}{{ $own = $tls.existingSecret }}{{ $other = $tls.clientSecret }}{{ end }}
{{- if $tls.existingSecret }}
{{- with $own }}
- secret:
    name: {{ . | quote }}
    items:
      - key: tls.crt
        path: tls.crt
      - key: tls.key
        path: tls.key
{{- end }}
{{- if $other }}
- secret:
    name: {{ $tls.caSecret | default $other | quote }}
    items:
      - key: ca.crt
        path: ca.crt
{{- end }}
{{- end }}
{{- end }}

{{/* Arguments: root, role. */}}
{{- define "busyapi.archiveEnv" -}}
- name: BUSYAPI_ARCHIVE_SECRET_FILE
  value: /etc/busyapi/archive/secret
{{- $tls := .root.Values.archivePort.tls }}
{{- if $tls.existingSecret }}
{{- $settings := dict "BUSYAPI_ARCHIVE_CA_FILE" "ca.crt" }}
{{- if eq .role "flusher" }}
{{- $settings = dict "BUSYAPI_ARCHIVE_CERT_FILE" "tls.crt" "BUSYAPI_ARCHIVE_KEY_FILE" "tls.key" }}
{{- if $tls.clientSecret }}{{ $_ := set $settings "BUSYAPI_ARCHIVE_CLIENT_CA_FILE" "ca.crt" }}{{ end }}
{{- else if $tls.clientSecret }}
{{- $_ := set $settings "BUSYAPI_ARCHIVE_CLIENT_CERT_FILE" "tls.crt" }}
{{- $_ := set $settings "BUSYAPI_ARCHIVE_CLIENT_KEY_FILE" "tls.key" }}
{{- end }}
{{- range $name, $file := $settings }}
- name: {{ $name }}
  value: /etc/busyapi/archive-tls/{{ $file }}
{{- end }}
{{- end }}
{{- end }}

{{- define "busyapi.archiveMounts" -}}
- name: archive-secret
  mountPath: /etc/busyapi/archive
  readOnly: true
{{- if .Values.archivePort.tls.existingSecret }}
- name: archive-tls
  mountPath: /etc/busyapi/archive-tls
  readOnly: true
{{- end }}
{{- end }}

{{/* Arguments: root, role. */}}
{{- define "busyapi.archiveVolumes" -}}
- name: archive-secret
  secret:
    secretName: {{ include "busyapi.archiveSecret" .root | quote }}
    items:
      - key: secret
        path: secret
{{- with include "busyapi.archiveTlsSources" . }}
- name: archive-tls
  projected:
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- end }}

{{/* What the flushers' StatefulSet says of partitions, as YAML: `base`, the number at install, and
`flushers`, the number that exists. A partition that left keeps its flusher, which archives what still
waits and serves lookups, so the number never shrinks by itself. Without a cluster (helm template,
Argo CD) the lookup is empty, and flusher.replicas has to say it. */}}
{{- define "busyapi.partitions" -}}
{{- $namespace := include "busyapi.namespace" . }}
{{- $fullname := include "busyapi.fullname" . }}
{{- $partitions := .Values.config.partitions | int }}
{{- $set := lookup "apps/v1" "StatefulSet" $namespace (print $fullname "-flusher") | default dict }}
{{- $recorded := ($set.metadata | default dict).annotations | default dict }}
{{- /* A release of an older chart has no annotations, and its number never changed. Its ConfigMap may be newer than its
flushers, if an upgrade to this chart failed halfway; but they may be scaled to 0. */}}
{{- $config := (lookup "v1" "ConfigMap" $namespace $fullname).data | default dict }}
{{- $old := ($set.spec | default dict).replicas | default ($config.BUSYAPI_PARTITIONS | default $partitions) | int }}
base: {{ get $recorded "busyapi/base" | default $old | int }}
flushers: {{ max $partitions (.Values.flusher.replicas | int) (get $recorded "busyapi/flushers" | default $old | int) }}
{{- end }}
