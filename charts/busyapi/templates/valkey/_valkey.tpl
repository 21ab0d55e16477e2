{{/* The bundled Valkey: memory, settings, and who may do what. */}}

{{/* Bytes of a Kubernetes quantity such as 512Mi, 1.5Gi, 2G, 1e9 or 1073741824. */}}
{{- define "busyapi.bytes" -}}
{{- $text := toString . }}
{{- if kindIs "float64" . }}{{ $text = . | int64 | toString }}{{ end }}
{{- $units := dict "" 1 "k" 1000 "M" 1000000 "G" 1000000000 "T" 1000000000000 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 }}
{{- $unit := regexFind "[A-Za-z]*$" $text }}
{{- if not (hasKey $units $unit) }}
{{- fail (printf "valkey.resources.limits.memory: %s cannot be read; write it like 512Mi or 1Gi, or set valkey.maxmemory" $text) }}
{{- end }}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit | float64) | int64 }}
{{- end }}

{{- define "busyapi.maxmemory" -}}
{{- with .Values.valkey }}
{{- if .maxmemory }}
{{- .maxmemory }}
{{- else if not (dig "limits" "memory" "" .resources) }}
{{- fail "valkey.resources.limits.memory is not set, so how much Valkey may use cannot be told: set it, or valkey.maxmemory" }}
{{- else }}
{{- div (mul 3 (include "busyapi.bytes" .resources.limits.memory | int64)) 4 }}
{{- end }}
{{- end }}
{{- end }}

{{/* What stands last wins: no extraConfig may make a 201 mean less. */}}
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
# API and flusher ask at least every five seconds. A connection that is silent for longer, such as one
# that never logs in, must not keep a place that a pod needs.
timeout 30
maxclients 10000
{{- end }}

{{/*
Who may do what, from the SHA-256 of each role's password and the prefix of the keys. A script runs as its caller, so what the
scripts call is among a role's commands. The probe may do nothing but PING, and so needs no password.

Nobody can log in as default, yet it must have every right: Valkey and Redis replay their log as that
user, and silently drop from it what it may not do (valkey#3983, redis#14541).
*/}}
{{- define "busyapi.acl" -}}
user default off ~* &* +@all
user probe on nopass resetchannels -@all +ping
user api on #{{ .api }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get +waitaof +get +set +exists +hget +hlen +hmget +hset +hdel +incrby +xadd +xrange
user flusher on #{{ .flusher }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get +waitaof +get +set +pexpire +pttl +exists +hget +hlen +hmget +hset +hdel +hexists +xread +xtrim
{{- end }}
