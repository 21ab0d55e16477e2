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

{{/* Return the bytes of a size in valkey.conf, such as 1gb (1024 cubed), 1g (1000 cubed) or 1048576. */}}
{{- define "busyapi.valkeyBytes" -}}
{{- $text := lower . }}
{{- $units := dict "" 1 "b" 1 "k" 1000 "kb" 1024 "m" 1000000 "mb" 1048576 "g" 1000000000 "gb" 1073741824 }}
{{- $unit := regexFind "[a-z]*$" $text }}
{{- mulf (trimSuffix $unit $text | float64) (get $units $unit | float64) | int64 }}
{{- end }}

{{/*
Three quarters of the memory limit, but at most the limit less 64Mi. What maxmemory does not cover, such as the
program itself, fragmentation and the pages that change while the AOF is rewritten, does not shrink with
the limit: with less, the kernel kills Valkey before it refuses a write. Below 96Mi there is no room for data.
*/}}
{{- define "busyapi.maxmemory" -}}
{{- $reserve := 67108864 }}
{{- with .Values.valkey }}
{{- $text := dig "limits" "memory" "" .resources }}
{{- if $text }}
{{- $limit := include "busyapi.bytes" $text | int64 }}
{{- if lt $limit 100663296 }}
{{- fail (printf "valkey.resources.limits.memory is %v, and 64Mi of it are reserved for Valkey itself: set it to 96Mi or more" $text) }}
{{- end }}
{{- /* 0 means no limit. */}}
{{- $max := include "busyapi.valkeyBytes" .maxmemory | int64 }}
{{- if and .maxmemory (or (eq $max 0) (gt $max (sub $limit $reserve))) }}
{{- fail (printf "valkey.maxmemory is %s, which leaves less than 64Mi of valkey.resources.limits.memory (%v) to Valkey itself: lower the one or raise the other" .maxmemory $text) }}
{{- end }}
{{- .maxmemory | default (min (div (mul 3 $limit) 4) (sub $limit $reserve)) }}
{{- else if .maxmemory }}
{{- .maxmemory }}
{{- else }}
{{- fail "valkey.resources.limits.memory is not set, so maxmemory cannot be calculated: set it, or valkey.maxmemory" }}
{{- end }}
{{- end }}
{{- end }}

{{/* The last line wins, so extraConfig comes first: it must not weaken what a 201 promises. */}}
{{- define "busyapi.valkeyConf" -}}
{{- with .Values.valkey.extraConfig }}
{{- . | trim }}
{{ end -}}
{{- if include "busyapi.valkeyTls" . -}}
port 0
tls-port 6379
tls-cert-file /etc/valkey-tls/tls.crt
tls-key-file /etc/valkey-tls/tls.key
tls-protocols TLSv1.3
# Clients have passwords instead.
tls-auth-clients no
{{- else -}}
port 6379
{{- end }}
protected-mode yes
dir /data
aclfile /etc/valkey/users.acl
appendonly yes
appendfsync {{ ternary "everysec" "always" (eq .Values.config.durability "memory") }}
no-appendfsync-on-rewrite no
# After a rewrite the old file is deleted, and an fsync waits for that: 10 ms for 64 MB.
auto-aof-rewrite-min-size 16mb
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
password. The exporter reads no key, no setting and no command of others: SLOWLOG GET would show usages.
tls-reload sets the certificate. CONFIG SET allows more than that, so only a container in Valkey's own pod,
which has the data anyway, has its password.

No client can log in as default, but it must have every right: Valkey and Redis replay their append-only
file as that user, and silently drop commands that it may not run (valkey#3983, redis#14541).
*/}}
{{- define "busyapi.acl" -}}
user default off ~* &* +@all
user probe on nopass resetchannels -@all +ping
{{- if .exporter }}
user exporter on #{{ .exporter }} resetchannels -@all +ping +info +client|setname +latency|latest +latency|histogram +slowlog|len
{{- end }}
{{- with get . "tls-reload" }}
user tls-reload on #{{ . }} resetchannels -@all +config|set
{{- end }}
user api on #{{ .api }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get +waitaof +time +get +set +exists +hget +hlen +hmget +hset +hdel +incrby +xadd +xrange
user flusher on #{{ .flusher }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get +waitaof +get +set +pexpire +pttl +exists +hget +hlen +hmget +hset +hdel +hexists +xread +xtrim
{{- end }}
