{{/* Names, labels and images. Each is built in one place. */}}

{{- define "busyapi.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 44 | regexFind "^.*[a-zA-Z0-9]" }}
{{- end }}

{{/*
At most 44 characters: with -flusher and a hash it becomes a pod label of at most 63. A name that is cut
ends in a hash, so that two long names do not become the same. A release that was installed under a cut
name without a hash keeps it; if there is no cluster to look it up in (Argo CD), set fullnameOverride.
*/}}
{{- define "busyapi.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := .Values.fullnameOverride | default (ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name)) }}
{{- if le (len $full) 44 }}
{{- $full }}
{{- else }}
{{- $cut := $full | trunc 44 | trimSuffix "-" }}
{{- $old := lookup "apps/v1" "Deployment" (include "busyapi.namespace" .) $cut }}
{{- if eq (dig "metadata" "annotations" "meta.helm.sh/release-name" "" ($old | default dict)) .Release.Name }}
{{- $cut }}
{{- else }}
{{- printf "%s-%s" ($full | trunc 35 | trimSuffix "-") ($full | sha256sum | trunc 8) }}
{{- end }}
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
app.kubernetes.io/name: {{ include "busyapi.name" $root | quote }}
app.kubernetes.io/instance: {{ $root.Release.Name | quote }}
app.kubernetes.io/component: {{ .component | quote }}
{{- end }}

{{/* The labels of a component's objects. Those of selectors win, then those of the values.
Arguments: root, component, labels (optional). */}}
{{- define "busyapi.labels" -}}
{{- $root := .root }}
{{- $chart := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-")
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service
  "app.kubernetes.io/part-of" "busyapi" }}
{{- include "busyapi.merge" (dict "maps" (list (include "busyapi.selectorLabels" . | fromYaml) .labels $root.Values.commonLabels $chart)) }}
{{- end }}

{{/* The labels of a component's pods. They do not include the chart's version, which would replace
every pod at every upgrade. Arguments: root, component, labels. */}}
{{- define "busyapi.podLabels" -}}
{{- $selector := include "busyapi.selectorLabels" . | fromYaml }}
{{- include "busyapi.merge" (dict "maps" (list $selector .labels .root.Values.commonLabels (dict "app.kubernetes.io/part-of" "busyapi"))) }}
{{- end }}

{{/* The metadata of an object. Arguments: root, component, and optional: name or suffix (of
the full name), namespace, isClusterScoped (no namespace), labels, annotations, hook (annotations that win). */}}
{{- define "busyapi.metadata" -}}
name: {{ .name | default (printf "%s%s" (include "busyapi.fullname" .root) (.suffix | default "")) | quote }}
{{- if not .isClusterScoped }}
namespace: {{ .namespace | default (include "busyapi.namespace" .root) | quote }}
{{- end }}
labels:
  {{- include "busyapi.labels" . | nindent 2 }}
{{- with include "busyapi.merge" (dict "maps" (list .hook .annotations .root.Values.commonAnnotations)) }}
annotations:
  {{- . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The reference of an image. Arguments: root, image. */}}
{{- define "busyapi.image" -}}
{{- $root := .root }}
{{- $image := .image }}
{{- $registry := $root.Values.global.imageRegistry | default $image.registry }}
{{- $repository := empty $registry | ternary $image.repository (printf "%s/%s" $registry $image.repository) }}
{{- if $image.digest }}
{{- printf "%s@%s" $repository $image.digest | quote }}
{{- else }}
{{- printf "%s:%s" $repository ($image.tag | default $root.Chart.AppVersion) | quote }}
{{- end }}
{{- end }}

{{/* The settings that all pods have in common. Arguments: root, component, and optional: settings, the
section of the component in the values. */}}
{{- define "busyapi.podSettings" -}}
{{- $root := .root }}
{{- $secrets := list }}
{{- range concat $root.Values.imagePullSecrets ($root.Values.global.imagePullSecrets | default list) }}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) }}
{{- end }}
{{- with $secrets | uniq }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
serviceAccountName: {{ include "busyapi.serviceAccountName" $root | quote }}
automountServiceAccountToken: false
# Otherwise a Service named *-metrics or *-flusher adds BUSYAPI_…_PORT=tcp://… to the environment.
enableServiceLinks: false
{{- with .settings.priorityClassName | default (include "busyapi.priorityClassName" (dict "root" $root "component" .component)) }}
priorityClassName: {{ . | quote }}
{{- end }}
securityContext:
  {{- toYaml .settings.podSecurityContext | nindent 2 }}
{{- with .settings.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .settings.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- include "busyapi.spread" (dict "root" $root "component" $.component "constraints" .) | nindent 2 }}
{{- end }}
{{- end }}

{{/* The name of the PriorityClass of a component; nothing if it has none. A class is not in a namespace, so a
generated name has that of the release. Arguments: root, component. */}}
{{- define "busyapi.priorityClassName" -}}
{{- $root := .root }}
{{- $class := get $root.Values.priorityClass (get (dict "api" "api" "flusher" "data" "valkey" "data") .component) | default dict }}
{{- if $class.name }}
{{- $class.name }}
{{- else if and $class $root.Values.priorityClass.create }}
{{- printf "%s-%s-%s" (include "busyapi.namespace" $root) (include "busyapi.fullname" $root) (ternary "api" "data" (eq .component "api")) | trimPrefix "-" }}
{{- end }}
{{- end }}

{{/* The probes of a container, without those whose map is empty. */}}
{{- define "busyapi.probes" -}}
{{- range $name := list "startupProbe" "livenessProbe" "readinessProbe" }}
{{- with get $ $name }}
{{ $name }}:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}
{{- end }}

{{/* The annotations of pods: checksums, then those of the values, then those for Prometheus.
Arguments: root, checksums, annotations, port (optional). */}}
{{- define "busyapi.podAnnotations" -}}
{{- $scrape := dict }}
{{- if and .port .root.Values.metrics.annotations.enabled }}
{{- $scrape = dict "prometheus.io/scrape" "true" "prometheus.io/port" (toString .port) "prometheus.io/path" "/metrics" }}
{{- end }}
{{- include "busyapi.merge" (dict "maps" (list .checksums .annotations $scrape)) }}
{{- end }}

{{/* Set the checksum of an existing Secret's key, so that a change rolls the pods. Without a cluster there
is nothing to look up. Arguments: root, checksums, name, secret, key. */}}
{{- define "busyapi.secretChecksum" -}}
{{- $secret := lookup "v1" "Secret" (include "busyapi.namespace" .root) .secret }}
{{- with get (($secret | default dict).data | default dict) .key }}
{{- $_ := set $.checksums $.name (sha256sum .) }}
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
ipFamilyPolicy: {{ . | quote }}
{{- end }}
{{- with .Values.service.ipFamilies }}
ipFamilies:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The spec of a volume claim. Arguments: root, persistence. */}}
{{- define "busyapi.claimSpec" -}}
accessModes:
  {{- toYaml .persistence.accessModes | nindent 2 }}
{{- with .persistence.storageClass | default .root.Values.global.storageClass }}
storageClassName: {{ ternary "" . (eq . "-") | quote }}
{{- end }}
resources:
  requests:
    storage: {{ .persistence.size | toJson }}
{{- end }}
