{{- define "conductor.labels" -}}
app.kubernetes.io/name: thinktune-conductor
app.kubernetes.io/component: conductor
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
thinktune.dev/run: {{ .Values.run | quote }}
{{- end -}}

{{- define "conductor.selector" -}}
app.kubernetes.io/name: thinktune-conductor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
