{{- define "conductor.labels" -}}
app.kubernetes.io/name: thinktune-conductor
app.kubernetes.io/component: conductor
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: thinktune
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
thinktune.dev/run: {{ .Values.run | quote }}
{{- end -}}

{{- define "conductor.selector" -}}
app.kubernetes.io/name: thinktune-conductor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}
