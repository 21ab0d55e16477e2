{{/* TLS of the bundled Valkey: where its certificate comes from, and what changes with it. */}}

{{/* Return what makes the certificate: "secret" (an existing one), "issuer" (cert-manager) or "chart"; nothing
without TLS. */}}
{{- define "busyapi.valkeyTls" -}}
{{- if and .Values.valkey.enabled .Values.valkey.tls.enabled }}
{{- if .Values.valkey.tls.existingSecret }}secret{{ else if .Values.valkey.tls.issuerRef.name }}issuer{{ else }}chart{{ end }}
{{- end }}
{{- end }}

{{/* The Secret with the certificate. cert-manager has a Secret of its own, which Helm does not know. */}}
{{- define "busyapi.valkeyTlsSecret" -}}
{{- $suffix := eq (include "busyapi.valkeyTls" .) "issuer" | ternary "cert" "tls" }}
{{- .Values.valkey.tls.existingSecret | default (printf "%s-valkey-%s" (include "busyapi.fullname" .) $suffix) }}
{{- end }}

{{/* The DNS names of the certificate. API and flusher use the first one, with several servers those of
the servers. */}}
{{- define "busyapi.valkeyDnsNames" -}}
{{- $name := printf "%s-valkey" (include "busyapi.fullname" .) }}
{{- $namespace := include "busyapi.namespace" . }}
{{- $names := list $name (printf "%s.%s" $name $namespace) (printf "%s.%s.svc" $name $namespace) }}
{{- if include "busyapi.hasReplicas" . }}{{ $names = concat $names (include "busyapi.valkeyServers" . | fromYamlArray) }}{{ end }}
{{- toYaml $names }}
{{- end }}

{{/* The probes of Valkey. A valkey-cli needs options for TLS. It does not verify the certificate: an expired one
must not make Valkey unready for connections that are open. With several servers, a valkey-cli is replaced
by a script that also says whether a replica has all data. */}}
{{- define "busyapi.valkeyProbes" -}}
{{- $probes := dict }}
{{- range $name := list "startupProbe" "livenessProbe" "readinessProbe" }}
{{- $probe := get $.Values.valkey $name | default dict | deepCopy }}
{{- $command := dig "exec" "command" list $probe }}
{{- if and (include "busyapi.valkeyTls" $) $command (eq (first $command) "valkey-cli") (not (has "--tls" $command)) }}
{{- $_ := set $probe.exec "command" (concat (list "valkey-cli" "--tls" "--insecure") (rest $command)) }}
{{- end }}
{{- if and (include "busyapi.hasReplicas" $) $command (eq (first $command) "valkey-cli") }}
{{- $_ := set $probe "exec" (dict "command" (list "sh" "/etc/valkey/ready.sh")) }}
{{- end }}
{{- $_ := set $probes $name $probe }}
{{- end }}
{{- include "busyapi.probes" $probes }}
{{- end }}
