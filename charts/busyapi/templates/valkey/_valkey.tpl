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
{{- if include "busyapi.hasReplicas" . }}
tls-ca-cert-file /etc/busyapi/redis-ca/ca.crt
tls-replication yes
{{- end }}
{{- else -}}
port 6379
{{- end }}
protected-mode yes
dir /data
aclfile /etc/valkey/users.acl
appendonly yes
appendfsync {{ ternary "everysec" "always" (eq (include "busyapi.durability" .) "memory") }}
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
{{- if include "busyapi.hasReplicas" . }}
# Only the flusher lets a server be promoted: it knows which ones have every acknowledged usage.
replica-priority 0
masteruser replication
repl-diskless-sync-delay 0
# Commits wait for a replica that is silent until it is disconnected.
repl-ping-replica-period 1
repl-timeout 3
# On SIGTERM it would pause writes for up to ten seconds, so that replicas get the last ones. They have confirmed
# what was acknowledged, and without the pause another server takes over at once.
shutdown-timeout 0
# Of the memory that maxmemory does not cover.
client-output-buffer-limit replica 64mb 0 0
{{- end }}
{{- end }}

{{/* The files of a pod: settings and scripts. */}}
{{- define "busyapi.valkeyFiles" -}}
{{- $files := dict "valkey.conf" (include "busyapi.valkeyConf" . | printf "%s\n") }}
{{- $scripts := list "single.sh" }}
{{- if include "busyapi.hasReplicas" . }}
{{- $_ := set $files "sentinel.conf" (include "busyapi.sentinelConf" . | printf "%s\n") }}
{{- $scripts = list "tier.sh" "start.sh" "sentinel.sh" "ready.sh" "stop.sh" "stay.sh" }}
{{- end }}
{{- range $scripts }}
{{- $_ := set $files . ($.Files.Get (printf "files/valkey/%s" .)) }}
{{- end }}
{{- toYaml $files }}
{{- end }}

{{/* The variables of the scripts of a pod of several. */}}
{{- define "busyapi.valkeyEnv" -}}
- name: NAME
  value: {{ include "busyapi.fullname" . }}-valkey
- name: REPLICAS
  value: {{ .count | default .Values.valkey.replicas | int64 | quote }}
- name: PREFIX
  value: {{ include "busyapi.keyPrefix" . | quote }}
- name: TLS
  value: {{ empty (include "busyapi.valkeyTls" .) | ternary "" "--tls" | quote }}
{{- end }}

{{- define "busyapi.valkeyReplicaMounts" -}}
- name: run
  mountPath: /run/valkey
- name: logins
  mountPath: /etc/valkey-logins
  readOnly: true
{{- include "busyapi.redisCaMount" . }}
{{- end }}

{{/* The settings of a Sentinel. What depends on the pod is added by sentinel.sh. */}}
{{- define "busyapi.sentinelConf" -}}
{{- if include "busyapi.valkeyTls" . -}}
port 0
tls-port 26379
tls-cert-file /etc/valkey-tls/tls.crt
tls-key-file /etc/valkey-tls/tls.key
tls-ca-cert-file /etc/busyapi/redis-ca/ca.crt
tls-protocols TLSv1.3
tls-auth-clients no
tls-replication yes
{{- else -}}
port 26379
{{- end }}
dir /run/valkey
aclfile /etc/valkey/sentinel.acl
protected-mode no
# Addresses of pods change, their names do not.
sentinel resolve-hostnames yes
sentinel announce-hostnames yes
sentinel down-after-milliseconds {{ include "busyapi.sentinelMaster" . }} {{ .Values.valkey.sentinel.downAfterMilliseconds | int64 }}
sentinel failover-timeout {{ include "busyapi.sentinelMaster" . }} 5000
sentinel parallel-syncs {{ include "busyapi.sentinelMaster" . }} {{ .Values.valkey.replicas | int64 }}
{{- end }}

{{/*
The ACL, from the SHA-256 of each role's password and the prefix of the keys. A script runs as its
caller, so a role needs every command that its scripts call. The probe may only PING, so it needs no
password. The exporter reads no key, no setting and no command of others: SLOWLOG GET would show usages.
With several servers, the user pod is that of the scripts in their pods.
tls-reload sets the certificate. CONFIG SET allows more than that, so only a container in Valkey's own pod,
which has the data anyway, has its password.

No client can log in as default, but it must have every right: Valkey and Redis replay their append-only
file as that user, and silently drop commands that it may not run (valkey#3983, redis#14541).
*/}}
{{- define "busyapi.acl" -}}
user default off ~* &* +@all
user probe on nopass resetchannels -@all +ping
{{- if .replication }}
user replication on #{{ .replication }} resetchannels -@all +psync +replconf +ping
user sentinel on #{{ .sentinel }} resetchannels &__sentinel__:hello -@all +ping +info +role +multi +exec +slaveof +config|rewrite +client|setname +client|kill +script|kill +subscribe +publish +failover
user pod on #{{ .pod }} resetchannels %R~{{ .prefix }}:{0}:replicas %R~{{ .prefix }}:{0}:stay %W~{{ .prefix }}:{0}:stay %W~{{ .prefix }}:{0}:handover -@all +ping +role +info +dbsize +get +set
{{- end }}
{{- if .exporter }}
user exporter on #{{ .exporter }} resetchannels -@all +ping +info +client|setname +latency|latest +latency|histogram +slowlog|len
{{- end }}
{{- with get . "tls-reload" }}
user tls-reload on #{{ . }} resetchannels -@all +config|set
{{- end }}
user api on #{{ .api }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get{{ if .replication }} +wait{{ end }} +waitaof +time +get +set +exists +hget +hlen +hmget +hset +hdel +incrby +xadd +xrange
user flusher on #{{ .flusher }} resetchannels ~{{ .prefix }}:* -@all +evalsha +script|load +info +config|get{{ if .replication }} +config|set +config|rewrite +failover +client|kill +client|unpause +wait{{ end }} +waitaof +get +set +pexpire +pttl +exists +hget +hlen +hmget +hset +hdel +hexists +xread +xtrim
{{- end }}

{{/* The users of the Sentinels. They have the passwords of the same users of the servers. */}}
{{- define "busyapi.sentinelAcl" -}}
user default off resetchannels -@all
user probe on nopass resetchannels -@all +ping
user sentinel on #{{ .sentinel }} resetchannels &__sentinel__:hello -@all +ping +client|setname +publish +sentinel|is-master-down-by-addr
user pod on #{{ .pod }} resetchannels -@all +sentinel|master
user api on #{{ .api }} resetchannels -@all +sentinel|get-master-addr-by-name
user flusher on #{{ .flusher }} resetchannels -@all +sentinel|get-master-addr-by-name +sentinel|master +sentinel|replicas +sentinel|failover +sentinel|ckquorum
{{- end }}
