{{/* The address of Redis, and the login of a role. The password is a file, so that it can be rotated. */}}

{{/* A host of a URL: an IPv6 address needs brackets, which users leave out. */}}
{{- define "busyapi.redisHost" -}}
{{- regexMatch "^[^\\[]*:[^\\[]*:" . | ternary (printf "[%s]" .) . }}
{{- end }}

{{/* Return something if the bundled Valkey is several servers with Sentinels. */}}
{{- define "busyapi.hasReplicas" -}}
{{- if and .Values.valkey.enabled (gt (.Values.valkey.replicas | int) 1) }}yes{{ end }}
{{- end }}

{{/* The name by which the Sentinels of the bundled Valkey know the primary; also in files/valkey/tier.sh. */}}
{{- define "busyapi.sentinelMaster" -}}
busyapi
{{- end }}

{{/* The tier: with several servers a 201 means several disks, unless the values say otherwise. */}}
{{- define "busyapi.durability" -}}
{{- .Values.config.durability | default (empty (include "busyapi.hasReplicas" .) | ternary "fsync" "replicated") }}
{{- end }}

{{/* The DNS names of the bundled Valkey's servers. Each has a Service of its own, with the name of its pod. */}}
{{- define "busyapi.valkeyServers" -}}
{{- $root := . }}
{{- $names := list }}
{{- range $i := until (.Values.valkey.replicas | int) }}
{{- $names = append $names (printf "%s-valkey-%d" (include "busyapi.fullname" $root) $i) }}
{{- end }}
{{- toYaml $names }}
{{- end }}

{{/* The URL of a server of the bundled Valkey. Arguments: root, number ("" for the only one, or such as "-0"). */}}
{{- define "busyapi.valkeyUrl" -}}
{{ ternary "rediss" "redis" .root.Values.valkey.tls.enabled }}://{{ include "busyapi.fullname" .root }}-valkey{{ .number }}:6379
{{- end }}

{{/* The URL of an external Redis. Arguments: root, server (`externalRedis`, or one of its `servers`). */}}
{{- define "busyapi.externalUrl" -}}
{{- $external := .root.Values.externalRedis }}
{{- $scheme := ternary "rediss" "redis" $external.tls.enabled }}
{{- if eq $external.mode "standalone" -}}
{{ $scheme }}://{{ include "busyapi.redisHost" (.server.host | default "") }}:{{ .server.port | default $external.port | int64 }}
{{- else if eq $external.mode "sentinel" -}}
{{ $scheme }}+sentinel://{{ join "," (.server.hosts | default list) }}/{{ .server.masterName | default $external.masterName }}
{{- else -}}
{{ $scheme }}+cluster://{{ join "," (.server.hosts | default list) }}
{{- end }}
{{- end }}

{{- define "busyapi.redisUrl" -}}
{{- $external := .Values.externalRedis }}
{{- if include "busyapi.hasReplicas" . -}}
{{ ternary "rediss" "redis" .Values.valkey.tls.enabled }}+sentinel://{{ include "busyapi.valkeyServers" . | fromYamlArray | join ":26379," }}:26379/{{ include "busyapi.sentinelMaster" . }}
{{- else if .Values.valkey.enabled -}}
{{ include "busyapi.valkeyUrl" (dict "root" . "number" "") }}
{{- else if $external.servers -}}
{{- $urls := list }}
{{- range $external.servers }}
{{- $urls = append $urls (printf "%s=%s" (toString .partitions) (include "busyapi.externalUrl" (dict "root" $ "server" .))) }}
{{- end }}
{{- join " " $urls }}
{{- else -}}
{{ include "busyapi.externalUrl" (dict "root" . "server" $external) }}
{{- end }}
{{- end }}

{{/*
The prefix of every key. Only this release uses the bundled Valkey. On an external Redis the keys of
two releases must differ, so the prefix is made from namespace and release. An installation of 0.2.0 or
older keeps `busyapi`: its ConfigMap has no BUSYAPI_KEY_PREFIX. If there is no cluster to look it up in
(Argo CD), the flusher halts and names the value to set.
*/}}
{{- define "busyapi.keyPrefix" -}}
{{- $old := lookup "v1" "ConfigMap" (include "busyapi.namespace" .) (include "busyapi.fullname" .) }}
{{- if .Values.config.keyPrefix -}}
{{ .Values.config.keyPrefix }}
{{- else if .Values.valkey.enabled -}}
busyapi
{{- else if $old -}}
{{ ($old.data | default dict).BUSYAPI_KEY_PREFIX | default "busyapi" }}
{{- else -}}
busyapi:{{ include "busyapi.namespace" . }}:{{ .Release.Name }}
{{- end }}
{{- end }}

{{- define "busyapi.valkeySecret" -}}
{{- .Values.valkey.auth.existingSecret | default (printf "%s-valkey" (include "busyapi.fullname" .)) }}
{{- end }}

{{/* The Secret and key with the password of a role; nothing if Redis needs no password.
Arguments: root, role. */}}
{{- define "busyapi.redisPassword" -}}
{{- $root := .root }}
{{- $external := $root.Values.externalRedis }}
{{- if $root.Values.valkey.enabled }}
secretName: {{ include "busyapi.valkeySecret" $root | quote }}
items:
  - key: {{ .role }}-password
    path: password
{{- else if $external.existingSecret }}
secretName: {{ $external.existingSecret | quote }}
items:
  - key: {{ $external.existingSecretPasswordKey | quote }}
    path: password
{{- else if $external.password }}
secretName: {{ include "busyapi.fullname" $root }}-redis
items:
  - key: redis-password
    path: password
{{- end }}
{{- end }}

{{/* The same for the Sentinels, which have users of their own. Both roles use the same one. */}}
{{- define "busyapi.sentinelPassword" -}}
{{- $sentinel := .Values.externalRedis.sentinel }}
{{- if $sentinel.existingSecret }}
secretName: {{ $sentinel.existingSecret | quote }}
items:
  - key: {{ $sentinel.existingSecretPasswordKey | quote }}
    path: password
{{- else if $sentinel.password }}
secretName: {{ include "busyapi.fullname" . }}-redis
items:
  - key: sentinel-password
    path: password
{{- end }}
{{- end }}

{{/* The Secret and keys with the certificate for Redis; nothing if it asks for none. */}}
{{- define "busyapi.redisClientCertificate" -}}
{{- with .Values.externalRedis.tls.clientSecret }}
secretName: {{ . | quote }}
items:
  - key: tls.crt
    path: tls.crt
  - key: tls.key
    path: tls.key
{{- end }}
{{- end }}

{{/* The Secret and key with the CA of Redis; nothing if it is one of the system's, or without TLS. */}}
{{- define "busyapi.redisCa" -}}
{{- $external := .Values.externalRedis.tls }}
{{- if include "busyapi.valkeyTls" . }}
secretName: {{ .Values.valkey.tls.caSecret | default (include "busyapi.valkeyTlsSecret" .) | quote }}
items:
  - key: ca.crt
    path: ca.crt
{{- else if $external.caSecret }}
secretName: {{ $external.caSecret | quote }}
items:
  - key: {{ $external.caSecretKey | quote }}
    path: ca.crt
{{- end }}
{{- end }}

{{- define "busyapi.redisEnv" -}}
{{- $root := .root }}
{{- $external := $root.Values.externalRedis }}
{{- with ternary .role $external.username $root.Values.valkey.enabled }}
- name: BUSYAPI_REDIS_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if include "busyapi.redisPassword" . }}
- name: BUSYAPI_REDIS_PASSWORD_FILE
  value: /etc/busyapi/redis/password
{{- end }}
{{- if include "busyapi.redisCa" $root }}
- name: BUSYAPI_REDIS_CA_FILE
  value: /etc/busyapi/redis-ca/ca.crt
{{- end }}
{{- if include "busyapi.redisClientCertificate" $root }}
- name: BUSYAPI_REDIS_CERT_FILE
  value: /etc/busyapi/redis-tls/tls.crt
- name: BUSYAPI_REDIS_KEY_FILE
  value: /etc/busyapi/redis-tls/tls.key
{{- end }}
{{- with ternary .role $external.sentinel.username (not (empty (include "busyapi.hasReplicas" $root))) }}
- name: BUSYAPI_REDIS_SENTINEL_USERNAME
  value: {{ . | quote }}
{{- end }}
{{- if include "busyapi.hasReplicas" $root }}
- name: BUSYAPI_REDIS_SENTINEL_PASSWORD_FILE
  value: /etc/busyapi/redis/password
{{- else if include "busyapi.sentinelPassword" $root }}
- name: BUSYAPI_REDIS_SENTINEL_PASSWORD_FILE
  value: /etc/busyapi/redis-sentinel/password
{{- end }}
{{- end }}

{{- define "busyapi.redisMounts" -}}
{{- if include "busyapi.redisPassword" . }}
- name: redis-password
  mountPath: /etc/busyapi/redis
  readOnly: true
{{- end }}
{{- if include "busyapi.sentinelPassword" .root }}
- name: redis-sentinel-password
  mountPath: /etc/busyapi/redis-sentinel
  readOnly: true
{{- end }}
{{- if include "busyapi.redisClientCertificate" .root }}
- name: redis-tls
  mountPath: /etc/busyapi/redis-tls
  readOnly: true
{{- end }}
{{- include "busyapi.redisCaMount" .root }}
{{- end }}

{{- define "busyapi.redisVolumes" -}}
{{- with include "busyapi.redisPassword" . }}
- name: redis-password
  secret:
    {{- . | nindent 4 }}
{{- end }}
{{- with include "busyapi.sentinelPassword" .root }}
- name: redis-sentinel-password
  secret:
    {{- . | nindent 4 }}
{{- end }}
{{- with include "busyapi.redisClientCertificate" .root }}
- name: redis-tls
  secret:
    {{- . | nindent 4 }}
{{- end }}
{{- include "busyapi.redisCaVolume" .root }}
{{- end }}

{{- define "busyapi.redisCaMount" -}}
{{- if include "busyapi.redisCa" . }}
- name: redis-ca
  mountPath: /etc/busyapi/redis-ca
  readOnly: true
{{- end }}
{{- end }}

{{- define "busyapi.redisCaVolume" -}}
{{- with include "busyapi.redisCa" . }}
- name: redis-ca
  secret:
    {{- . | nindent 4 }}
{{- end }}
{{- end }}
