{{/* Helpers of the API's templates. */}}

{{/* Return "true" if an autoscaler sets the number of API pods, otherwise nothing. */}}
{{- define "busyapi.scaled" -}}
{{- if or .Values.autoscaling.enabled .Values.keda.enabled }}true{{ end }}
{{- end }}

{{/* Return the maximum number of API pods. */}}
{{- define "busyapi.maxReplicas" -}}
{{- if .Values.autoscaling.enabled }}{{ .Values.autoscaling.maxReplicas | int }}
{{- else if .Values.keda.enabled }}{{ .Values.keda.maxReplicas | int }}
{{- else }}{{ .Values.replicaCount | int }}{{ end }}
{{- end }}

{{/* Return the seconds that an API pod may take to stop: the sum of all its waits. */}}
{{- define "busyapi.stopSeconds" -}}
{{- add (.Values.preStopSleepSeconds | int) (ceil (addf .Values.config.drainDelay .Values.config.stopTimeout) | int) }}
{{- end }}

{{- define "busyapi.graceSeconds" -}}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}
{{- add (include "busyapi.stopSeconds" . | int) 10 }}
{{- else }}
{{- .Values.terminationGracePeriodSeconds | int }}
{{- end }}
{{- end }}

{{/* The paths that are reachable from outside. Metrics have their own port, and probes are for the
kubelet only. */}}
{{- define "busyapi.publicPaths" -}}
- path: /api
  pathType: Prefix
- path: /
  pathType: Exact
- path: /openapi.json
  pathType: Exact
{{- end }}

{{/* The URLs that lead to the API from outside: each host of the Ingress and the HTTPRoute that is one
name. A Gateway may redirect to https. */}}
{{- define "busyapi.outsideUrls" -}}
{{- $urls := list }}
{{- if .Values.ingress.enabled }}
{{- $scheme := empty .Values.ingress.tls | ternary "http" "https" }}
{{- range .Values.ingress.hosts }}
{{- $host := tpl (.host | default "") $ }}
{{- if and $host (not (hasPrefix "*" $host)) }}{{ $urls = append $urls (printf "%s://%s" $scheme $host) }}{{ end }}
{{- end }}
{{- end }}
{{- if .Values.httpRoute.enabled }}
{{- range .Values.httpRoute.hostnames }}
{{- $host := tpl . $ }}
{{- if not (hasPrefix "*" $host) }}{{ $urls = append $urls (printf "http://%s" $host) }}{{ end }}
{{- end }}
{{- end }}
{{- toYaml ($urls | uniq) }}
{{- end }}

{{/* The request rate of this release's API pods, for KEDA. */}}
{{- define "busyapi.requestsQuery" -}}
sum(rate(busyapi_requests_total{namespace={{ include "busyapi.namespace" . | quote }},pod=~"{{ include "busyapi.fullname" . }}-[a-z0-9]+-[a-z0-9]+"}[{{ .Values.keda.window }}]))
{{- end }}
