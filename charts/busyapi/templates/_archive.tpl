{{/* The secret of the flushers' port for the API: made once by the chart, or an existing one. It is read
again when it changes, so that it can be rotated. */}}

{{- define "busyapi.archiveSecret" -}}
{{- .Values.flusher.auth.existingSecret | default (printf "%s-archive" (include "busyapi.fullname" .)) }}
{{- end }}

{{- define "busyapi.archiveEnv" -}}
- name: BUSYAPI_ARCHIVE_SECRET_FILE
  value: /etc/busyapi/archive/secret
{{- end }}

{{- define "busyapi.archiveMount" -}}
- name: archive-secret
  mountPath: /etc/busyapi/archive
  readOnly: true
{{- end }}

{{- define "busyapi.archiveVolume" -}}
- name: archive-secret
  secret:
    secretName: {{ include "busyapi.archiveSecret" . | quote }}
    items:
      - key: secret
        path: secret
{{- end }}
