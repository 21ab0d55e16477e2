{{/* The bundled Valkey: memory, settings and ACL. */}}

{{/* Return the bytes of a Kubernetes quantity such as 512Mi, 1.5Gi, 2G, 1e9 or 1073741824. */}}
{{- define "busyapi.bytes" -}}
{{- $text := toString . }}
{{- if kindIs "float64" . }}{{ $text = . | int64 | toString }}{{ end }}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- if not (hasKey $units $unit) }}
{{- fail (printf "valkey.resources.limits.memory: %s cannot be parsed: write it like 512Mi or 1Gi, or set valkey.maxmemory" $text) }}
{{- end }}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit | float64) | int64 }}
{{- end }}

{{- define "busyapi.maxmemory" -}}
{{- with .Values.valkey }}
{{- if .maxmemory }}
{{- .maxmemory }}
{{- else if not (dig "limits" "memory" "" .resources) }}
{{- fail "valkey.resources.limits.memory is not set, so maxmemory cannot be calculated: set it, or valkey.maxmemory" }}
{{- else }}
{{- div (mul 3 (include "busyapi.bytes" .resources.limits.memory | int64)) 4 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The last line wins, so extraConfig comes first: it must not weaken what a 201 promises. */}}
{{- define "busyapi.valkeyConf" -}}
{{- with .Values.valkey.extraConfig }}
{{- . | trim }}
{{ end -}}
port 6379
protected-mode yes
dir /data
aclfile /etc/valkey/users.acl
appendonly yes
appendfsync {{ ternary "everysec" "always" (eq .Values.config.durability "memory") }}
no-appendfsync-on-rewrite no
save ""
maxmemory {{ include "busyapi.maxmemory" . }}
maxmemory-policy noeviction
tcp-keepalive 60
# API and flusher send a command at least every five seconds. A connection that is silent for longer,
# such as one that never logs in, must not use up a slot that a pod needs.
timeout 30
maxclients 10000
{{- end }}

{{/*
The ACL, from the SHA-256 of each role's password and the prefix of the keys. A script runs as its
caller, so a role needs every command that its scripts call. The probe may only PING, so it needs no
password.

No client can log in as default, but it must have every right: Valkey and Redis replay their append-only
file as that user, and silently drop commands that it may not run (valkey#3983, redis#14541).
*/}}
{{- define "busyapi.acl" -}}
user default off ~* &* +@all
user probe on nopass resetchannels -@all +ping
user api on #{{ .api }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get +waitaof +get +set +exists +hget +hlen +hmget +hset +hdel +incrby +xadd +xrange
user flusher on #{{ .flusher }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get +waitaof +get +set +pexpire +pttl +exists +hget +hlen +hmget +hset +hdel +hexists +xread +xtrim
{{- end }}
