{{/* Text of rules, for this release: (list $ text). */}}
{{- define "busyapi.ruleText" -}}
{{- $root := index . 0 -}}
{{- index . 1
  | replace "NAMESPACE" (include "busyapi.namespace" $root)
  | replace "FULLNAME" (include "busyapi.fullname" $root)
  | replace "RELEASE" $root.Release.Name
  | replace "RUNBOOKS/" $root.Values.metrics.prometheusRule.runbookUrl -}}
{{- end }}

{{/* files/rules.yaml, for this release. */}}
{{- define "busyapi.rules" -}}
{{- include "busyapi.ruleText" (list . (.Files.Get "files/rules.yaml")) }}
{{- end }}

{{/* A rule, with what values change of it: (list $ rule). */}}
{{- define "busyapi.rule" -}}
{{- $root := index . 0 -}}
{{- $rule := deepCopy (index . 1) -}}
{{- with $rule.alert -}}
{{- $values := $root.Values.metrics.prometheusRule -}}
{{- $override := get $values.overrides . | default dict -}}
{{- with $override.for }}{{ $_ := set $rule "for" . }}{{ end -}}
{{- with $override.expr }}{{ $_ := set $rule "expr" (include "busyapi.ruleText" (list $root .)) }}{{ end -}}
{{- $_ := set $rule "labels" (merge (dict) ($override.labels | default dict) $values.additionalRuleLabels $rule.labels) -}}
{{- end -}}
{{- toYaml $rule }}
{{- end }}
