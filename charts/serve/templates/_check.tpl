{{- /* What the schema of the values cannot say. The launcher's values pass; those that somebody has
written or changed may not. */}}
{{- define "serve.check" -}}
{{- if not (or (.Values.rollout.maxSurge | int) (.Values.rollout.maxUnavailable | int)) }}
{{- fail "rollout: with maxSurge 0 and maxUnavailable 0 no pod can ever be replaced; set one of them to 1" }}
{{- end }}
{{- with .Values.autoscaling }}
{{- if gt (.minReplicas | int) (.maxReplicas | int) }}
{{- fail (printf "autoscaling: minReplicas %d is more than maxReplicas %d; lower the one or raise the other" (.minReplicas | int) (.maxReplicas | int)) }}
{{- end }}
{{- if eq $.Values.workload "statefulset" }}
{{- fail "autoscaling: a statefulset is one server over several nodes, which nothing scales; set autoscaling to null, or workload to leaderworkerset" }}
{{- end }}
{{- end }}
{{- $answers := (fromJson .Values.task).times.grace_s }}
{{- if lt (.Values.seconds.grace | int64) (add (.Values.seconds.preStop | int64) (ceil $answers | int64)) }}
{{- fail (printf "seconds.grace: %d seconds are fewer than preStop (%d) and what answers get (times.grace_s of task, %v) together; raise it" (.Values.seconds.grace | int64) (.Values.seconds.preStop | int64) $answers) }}
{{- end }}
{{- range $label, $_ := .Values.access.podLabels }}
{{- if regexMatch "^(apps?\\.kubernetes\\.io|helm\\.sh|thinktune\\.dev|leaderworkerset\\.sigs\\.k8s\\.io)/" $label }}
{{- fail (printf "access.podLabels: '%s' is a label by which pods are found; remove it" $label) }}
{{- end }}
{{- end }}
{{- if .Values.placement.queue }}
{{- fail "placement.queue: a queue admits what ends, and a server would keep its place for good; set it to null" }}
{{- end }}
{{- end -}}

{{- /* What an address range must leave out: the cloud's metadata service, which hands out the node's
credentials, is never a store. Takes the range; empty where that does not hold it. */}}
{{- define "serve.metadataIn" -}}
{{- $parts := splitList "/" . }}
{{- $bits := last $parts | int }}
{{- if contains ":" . }}
{{- /* Of IPv6, the ranges that somebody writes who means all addresses, or all local ones. */}}
{{- if has (lower .) (list "::/0" "fc00::/7" "fd00::/8") }}fd00:ec2::254/128{{ end }}
{{- else if lt $bits 32 }}
{{- $size := 1 }}
{{- range until (int (sub 32 $bits)) }}{{ $size = mul $size 2 }}{{ end }}
{{- $number := 0 }}
{{- range splitList "." (first $parts) }}{{ $number = add (mul $number 256) (int64 .) }}{{ end }}
{{- if eq (div $number $size) (div 2852039166 $size) }}169.254.169.254/32{{ end }}
{{- end }}
{{- end -}}
