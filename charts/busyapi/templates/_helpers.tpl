{{/* Names, labels and images. Each is built in one place. */}}

{{- define "busyapi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 44 | trimSuffix "-" }}
{{- end }}

{{/* At most 44 characters: with -flusher and a hash it becomes a pod label of at most 63. */}}
{{- define "busyapi.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 44 | trimSuffix "-" }}
{{- else if contains $name .Release.Name }}
{{- .Release.Name | trunc 44 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 44 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "busyapi.namespace" -}}
{{- .Release.Namespace }}
{{- end }}

{{- define "busyapi.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}
{{- default (include "busyapi.fullname" .) .Values.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The selector labels of a component. They never change, because selectors are immutable.
Arguments: root, component. */}}
{{- define "busyapi.selectorLabels" -}}
{{- $root := .root -}}
app.kubernetes.io/name: {{ include "busyapi.name" $root }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- end }}

{{/* The labels of a component's objects. Arguments: root, component. */}}
{{- define "busyapi.labels" -}}
{{- $root := .root -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "busyapi.selectorLabels" . }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: busyapi
{{- with $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The labels of a component's pods. They do not include the chart's version, which would replace
every pod at every upgrade. Arguments: root, component, labels. */}}
{{- define "busyapi.podLabels" -}}
{{- $root := .root -}}
{{ include "busyapi.selectorLabels" . }}
app.kubernetes.io/part-of: busyapi
{{- with merge (dict) .labels $root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{/* The reference of an image. Arguments: root, image. */}}
{{- define "busyapi.image" -}}
{{- $root := .root }}
{{- $image := .image }}
{{- with $root.Values.global.imageRegistry | default $image.registry }}{{ . }}/{{ end }}
{{- $image.repository }}
{{- if $image.digest }}@{{ $image.digest }}{{ else }}:{{ $image.tag | default $root.Chart.AppVersion }}{{ end }}
{{- end }}

{{/* The scrape annotations for Prometheus. Arguments: root, port. */}}
{{- define "busyapi.scrapeAnnotations" -}}
{{- if .root.Values.metrics.annotations.enabled -}}
prometheus.io/scrape: "true"
prometheus.io/port: {{ .port | quote }}
prometheus.io/path: /metrics
{{- end }}
{{- end }}

{{/* Topology spread constraints; a missing labelSelector becomes that of the component. Pods of a
Deployment are counted per revision, otherwise they are unevenly spread after a rollout.
Arguments: root, component, constraints. */}}
{{- define "busyapi.spread" -}}
{{- $root := .root }}
{{- $component := .component }}
{{- $constraints := list }}
{{- range .constraints }}
{{- $constraint := deepCopy . }}
{{- if not (hasKey $constraint "labelSelector") }}
{{- $selector := include "busyapi.selectorLabels" (dict "root" $root "component" $component) | fromYaml }}
{{- $_ := set $constraint "labelSelector" (dict "matchLabels" $selector) }}
{{- if eq $component "api" }}
{{- $_ := set $constraint "matchLabelKeys" (list "pod-template-hash") }}
{{- end }}
{{- end }}
{{- $constraints = append $constraints $constraint }}
{{- end }}
{{- toYaml $constraints }}
{{- end }}

{{/* The IP families of every Service. */}}
{{- define "busyapi.ipFamilies" -}}
{{- with .Values.service.ipFamilyPolicy }}
ipFamilyPolicy: {{ . }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The spec of a volume claim. */}}
{{- define "busyapi.claimSpec" -}}
accessModes:
  {{- toYaml .accessModes | nindent 2 }}
{{- if eq (.storageClass | default "") "-" }}
storageClassName: ""
{{- else if .storageClass }}
storageClassName: {{ .storageClass }}
{{- end }}
resources:
  requests:
    storage: {{ .size }}
{{- end }}
