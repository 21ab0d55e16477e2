{{/* Who may write and read: the files of credentials, and the settings of the API. */}}

{{/* The scopes of a request without a credential, separated by commas. */}}
{{- define "busyapi.anonymousScopes" -}}
{{- $scopes := list }}
{{- if .Values.auth.allowAnonymousWrites }}{{ $scopes = append $scopes "write" }}{{ end }}
{{- if .Values.auth.allowAnonymousReads }}{{ $scopes = append $scopes "read" }}{{ end }}
{{- join "," $scopes }}
{{- end }}

{{/* Return "true" if clients can have credentials, otherwise nothing. That of `helm test` does not count. */}}
{{- define "busyapi.hasCredentials" -}}
{{- with .Values.auth }}
{{- if or .credentials .tokens .existingSecret .jwt.keys }}true{{ end }}
{{- end }}
{{- end }}

{{/* Return the values that make the API reachable from outside the cluster, as a list. */}}
{{- define "busyapi.exposures" -}}
{{- $exposures := list }}
{{- if .Values.ingress.enabled }}{{ $exposures = append $exposures "ingress.enabled=true" }}{{ end }}
{{- if .Values.httpRoute.enabled }}{{ $exposures = append $exposures "httpRoute.enabled=true" }}{{ end }}
{{- if ne .Values.service.type "ClusterIP" }}{{ $exposures = append $exposures (printf "service.type=%s" .Values.service.type) }}{{ end }}
{{- toYaml $exposures }}
{{- end }}

{{- define "busyapi.tokensSecret" -}}
{{- include "busyapi.fullname" . }}-tokens
{{- end }}

{{/* The Secret with the salt of the digests of writers. */}}
{{- define "busyapi.writerSaltSecret" -}}
{{- .Values.auth.writerSalt.existingSecret | default (printf "%s-writer-salt" (include "busyapi.fullname" .)) }}
{{- end }}

{{/* The Secret with the credential of `helm test`. */}}
{{- define "busyapi.testSecret" -}}
{{- .Values.tests.existingSecret | default (printf "%s-test" (include "busyapi.fullname" .)) }}
{{- end }}

{{/* The files of credentials, as sources of a projected volume. Each Secret is a file of its own. */}}
{{- define "busyapi.credentialSources" -}}
{{- $auth := .Values.auth }}
{{- if or $auth.credentials $auth.tokens }}
- secret:
    name: {{ include "busyapi.tokensSecret" . | quote }}
    items:
      {{- if $auth.credentials }}
      - key: credentials
        path: credentials.toml
      {{- end }}
      {{- if $auth.tokens }}
      - key: tokens
        path: tokens.toml
      {{- end }}
{{- end }}
{{- with $auth.existingSecret }}
- secret:
    name: {{ . | quote }}
    items:
      - key: {{ $auth.existingSecretKey | quote }}
        path: existing.toml
{{- end }}
{{- if .Values.tests.enabled }}
- secret:
    name: {{ include "busyapi.testSecret" . | quote }}
    items:
      - key: credential.toml
        path: helm-test.toml
{{- end }}
{{- end }}

{{- define "busyapi.authEnv" -}}
{{- if include "busyapi.credentialSources" . }}
- name: BUSYAPI_TOKENS_FILE
  value: /etc/busyapi/auth
{{- end }}
{{- if .Values.auth.jwt.caSecret }}
- name: BUSYAPI_JWT_CA_FILE
  value: /etc/busyapi/jwt-ca/ca.crt
{{- end }}
{{- if .Values.auth.writerSalt.enabled }}
- name: BUSYAPI_WRITER_SALT_FILE
  value: /etc/busyapi/writer-salt/salt
{{- end }}
{{- end }}

{{- define "busyapi.authMounts" -}}
{{- if include "busyapi.credentialSources" . }}
- name: credentials
  mountPath: /etc/busyapi/auth
  readOnly: true
{{- end }}
{{- if .Values.auth.jwt.caSecret }}
- name: jwt-ca
  mountPath: /etc/busyapi/jwt-ca
  readOnly: true
{{- end }}
{{- if .Values.auth.writerSalt.enabled }}
- name: writer-salt
  mountPath: /etc/busyapi/writer-salt
  readOnly: true
{{- end }}
{{- end }}

{{- define "busyapi.authVolumes" -}}
{{- with include "busyapi.credentialSources" . }}
- name: credentials
  projected:
    sources:
      {{- . | nindent 6 }}
{{- end }}
{{- with .Values.auth.jwt }}
{{- if .caSecret }}
- name: jwt-ca
  secret:
    secretName: {{ .caSecret | quote }}
    items:
      - key: {{ .caSecretKey | quote }}
        path: ca.crt
{{- end }}
{{- end }}
{{- if .Values.auth.writerSalt.enabled }}
- name: writer-salt
  secret:
    secretName: {{ include "busyapi.writerSaltSecret" . | quote }}
    items:
      - key: salt
        path: salt
{{- end }}
{{- end }}

{{/* The token of `helm test`, for its pods. */}}
{{- define "busyapi.testTokenMount" -}}
- name: token
  mountPath: /etc/busyapi/test
  readOnly: true
{{- end }}

{{- define "busyapi.testTokenVolume" -}}
- name: token
  secret:
    secretName: {{ include "busyapi.testSecret" . | quote }}
    items:
      - key: token
        path: token
{{- end }}
