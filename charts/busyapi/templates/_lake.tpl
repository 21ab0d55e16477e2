{{/* `busyapi lake` in a flusher's pod: only one pod can mount a partition's volume. It has no probe, and ends
only when its pod does, so that a catalog without an answer does not make the flusher's pod unready. */}}
{{- define "busyapi.lakeContainer" -}}
{{- with .Values.lake }}
{{- if .enabled -}}
- name: lake
  image: {{ include "busyapi.image" (dict "root" $ "image" .image) }}
  imagePullPolicy: {{ .image.pullPolicy }}
  args: [lake, --partition, $(POD_INDEX)]
  ports:
    - name: lake
      containerPort: 9110
  {{- with .extraEnvFrom }}
  envFrom:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  env:
    - name: POD_INDEX
      valueFrom:
        fieldRef:
          fieldPath: metadata.labels['apps.kubernetes.io/pod-index']
    - name: BUSYAPI_LAKE_WAREHOUSE
      value: {{ .warehouse | quote }}
    - name: BUSYAPI_LAKE_CATALOG
      value: {{ .catalog | quote }}
    - name: BUSYAPI_LAKE_TABLE
      value: {{ .table | quote }}
    - name: BUSYAPI_LAKE_INTERVAL
      value: {{ .interval | toJson | quote }}
    - name: BUSYAPI_LAKE_SNAPSHOT_HOURS
      value: {{ .snapshotHours | int64 | quote }}
    - name: BUSYAPI_LOG_LEVEL
      value: {{ $.Values.config.logLevel | quote }}
    {{- with .extraEnv }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- toYaml $.Values.securityContext | nindent 4 }}
  volumeMounts:
    - name: archive
      mountPath: /var/lib/busyapi
      readOnly: true
    - name: tmp
      mountPath: /tmp
{{- end }}
{{- end }}
{{- end }}
