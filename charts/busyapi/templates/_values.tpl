{{/*
Complete .Values, once per render: null or a missing value becomes its default. Helm does not do this for
`helm upgrade --reuse-values`, which keeps the defaults of the old chart, nor for a null in a parent chart.
Each template begins with it.
*/}}
{{- define "busyapi.complete" -}}
{{- if not (hasKey .Values "isComplete") }}
{{- include "busyapi.completeSection" (dict "values" .Values "defaults" (.Files.Get "files/defaults.yaml" | fromYaml)) }}
{{- if not (kindIs "map" .Values.global) }}{{ $_ := set .Values "global" dict }}{{ end }}
{{- $_ := set .Values "isComplete" true }}
{{- end }}
{{- end }}

{{/* A map of defaults is a section. A list holds the default of one value; if it has a second entry, null
means none. Arguments: values, defaults, isMissing (the whole section was missing). */}}
{{- define "busyapi.completeSection" -}}
{{- range $key, $default := .defaults }}
{{- $value := get $.values $key }}
{{- $isMissing := or (not (hasKey $.values $key)) (kindIs "invalid" $value) }}
{{- if kindIs "map" $default }}
{{- if $isMissing }}{{ $_ := set $.values $key dict }}{{ end }}
{{- include "busyapi.completeSection" (dict "values" (get $.values $key) "defaults" $default "isMissing" $isMissing) }}
{{- else if $isMissing }}
{{- if or $.isMissing (eq (len $default) 1) }}{{ $_ := set $.values $key (first $default) }}{{ end }}
{{- else if kindIs "map" $value }}
{{- include "busyapi.dropNulls" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* Remove the nulls in a map, at any depth. */}}
{{- define "busyapi.dropNulls" -}}
{{- range $key, $value := . }}
{{- if kindIs "invalid" $value }}{{ $_ := unset $ $key }}{{ else if kindIs "map" $value }}{{ include "busyapi.dropNulls" $value }}{{ end }}
{{- end }}
{{- end }}

{{/* Return maps as one, in which the first map with a key wins. Arguments: maps. */}}
{{- define "busyapi.merge" -}}
{{- $merged := dict }}
{{- range .maps }}
{{- range $key, $value := . }}
{{- if not (hasKey $merged $key) }}{{ $_ := set $merged $key $value }}{{ end }}
{{- end }}
{{- end }}
{{- if $merged }}{{ toYaml $merged }}{{ end }}
{{- end }}
