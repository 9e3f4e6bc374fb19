{{- define "serve.labels" -}}
app.kubernetes.io/name: thinktune-serve
app.kubernetes.io/component: serve
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: thinktune
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
thinktune.dev/server: {{ .Values.server | quote }}
{{- end -}}

{{- define "serve.selector" -}}
app.kubernetes.io/name: thinktune-serve
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- /* The pods that clients reach: of several nodes that share a model, the first. */}}
{{- define "serve.entrance" -}}
{{ include "serve.selector" . }}
{{- if eq .Values.workload "leaderworkerset" }}
leaderworkerset.sigs.k8s.io/worker-index: "0"
{{- else if eq .Values.workload "statefulset" }}
apps.kubernetes.io/pod-index: "0"
{{- end }}
{{- end -}}

{{- define "serve.several" -}}
{{- if ne .Values.workload "deployment" }}true{{ end -}}
{{- end -}}

{{- /* What says which runs are served, and changes while they are. */}}
{{- define "serve.adapters" -}}
{{- printf "%s-adapters" .Release.Name -}}
{{- end -}}

{{- /* The headless Service through which the nodes of one server find each other. */}}
{{- define "serve.nodes" -}}
{{- printf "%s-nodes" .Release.Name -}}
{{- end -}}

{{- define "serve.kind" -}}
{{- index (dict "deployment" "Deployment" "leaderworkerset" "LeaderWorkerSet" "statefulset" "StatefulSet") .Values.workload -}}
{{- end -}}

{{- define "serve.apiVersion" -}}
{{- if eq .Values.workload "leaderworkerset" }}leaderworkerset.x-k8s.io/v1{{ else }}apps/v1{{ end -}}
{{- end -}}
