{{- define "task.labels" -}}
app.kubernetes.io/name: thinktune
app.kubernetes.io/component: {{ .Values.stage }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: thinktune
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
thinktune.dev/run: {{ .Values.run | quote }}
thinktune.dev/stage: {{ .Values.stage }}
{{- end -}}

{{- define "task.selector" -}}
app.kubernetes.io/name: thinktune
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "task.indexed" -}}
{{- if gt (int .Values.topology.nodes) 1 }}true{{ end -}}
{{- end -}}

{{- /* A Service's name must start with a letter; the name of a run need not. */}}
{{- define "task.ranks" -}}
{{- printf "ranks-%s" .Release.Name -}}
{{- end -}}

{{/* Any address but the cloud's metadata services, which hand out the node's credentials. */}}
{{- define "task.anywhere" -}}
- ipBlock: {cidr: 0.0.0.0/0, except: [169.254.169.254/32]}
- ipBlock: {cidr: "::/0", except: ["fd00:ec2::254/128"]}
{{- end }}
