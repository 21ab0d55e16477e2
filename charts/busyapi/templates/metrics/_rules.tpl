{{/* Replace the tokens in a text of rules by those of this release. Arguments: root, text. */}}
{{- define "busyapi.ruleText" -}}
{{- $root := .root -}}
{{- .text
  | replace "__NAMESPACE__" (include "busyapi.namespace" $root)
  | replace "__FULLNAME__" (include "busyapi.fullname" $root)
  | replace "__RELEASE__" $root.Release.Name
  | replace "__RUNBOOKS__/" $root.Values.metrics.prometheusRule.runbookUrl -}}
{{- end }}

{{/* The text of files/rules.yaml for this release. */}}
{{- define "busyapi.rules" -}}
{{- include "busyapi.ruleText" (dict "root" . "text" (.Files.Get "files/rules.yaml")) }}
{{- end }}

{{/* A rule with the changes of the values. Arguments: root, rule. */}}
{{- define "busyapi.rule" -}}
{{- $root := .root -}}
{{- $rule := deepCopy .rule -}}
{{- with $rule.alert -}}
{{- $values := $root.Values.metrics.prometheusRule -}}
{{- $override := get $values.overrides . | default dict -}}
{{- with $override.for }}{{ $_ := set $rule "for" . }}{{ end -}}
{{- with $override.expr -}}
{{- /* Also accepts tokens without underscores, as in 0.2.0. */ -}}
{{- $expr := regexReplaceAll "_*(NAMESPACE|RELEASE|FULLNAME)_*" . "__${1}__" -}}
{{- $_ := set $rule "expr" (include "busyapi.ruleText" (dict "root" $root "text" $expr)) -}}
{{- end -}}
{{- $_ := set $rule "labels" (merge (dict) ($override.labels | default dict) $values.additionalRuleLabels $rule.labels) -}}
{{- end -}}
{{- toYaml $rule }}
{{- end }}
