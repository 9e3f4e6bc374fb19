{{- /* The pod of every kind of workload. Of several nodes each runs the same: its rank says whether
it has the gateway or computes for the one that has. */}}
{{- define "serve.pod" -}}
{{- $resources := .Values.resources }}
metadata:
  labels:
    {{- include "serve.labels" . | nindent 4 }}
    {{- with .Values.access.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    # Another task makes new pods. Other adapters do not: pods read those while they run.
    thinktune.dev/task-sha256: {{ .Values.task | sha256sum }}
    {{- if include "serve.several" . }}
    # But for several nodes, which would have to load an adapter in the same moment.
    thinktune.dev/served-sha256: {{ .Values.served | sha256sum }}
    {{- end }}
    kubectl.kubernetes.io/default-container: task
spec:
  serviceAccountName: {{ .Values.access.serviceAccount | default .Release.Name | quote }}
  automountServiceAccountToken: false
  enableServiceLinks: false
  terminationGracePeriodSeconds: {{ .Values.seconds.grace | int64 }}
  {{- with .Values.placement.priorityClass }}
  priorityClassName: {{ . | quote }}
  {{- end }}
  {{- with .Values.placement.nodeSelector }}
  nodeSelector: {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.placement.tolerations }}
  tolerations:
    {{- range . }}
    {{- $said := dict }}
    {{- range $key, $value := . }}{{ if $value }}{{ $_ := set $said $key $value }}{{ end }}{{ end }}
    - {{ toJson $said }}
    {{- end }}
  {{- end }}
  {{- if include "serve.several" . }}
  affinity:
    podAffinity:
      # The nodes of one server exchange activations in each step: one zone, if there are zones.
      preferredDuringSchedulingIgnoredDuringExecution:
        - weight: 100
          podAffinityTerm:
            topologyKey: topology.kubernetes.io/zone
            labelSelector:
              matchLabels: {{- include "serve.selector" . | nindent 16 }}
  {{- else }}
  topologySpreadConstraints:
    # A node or a zone that goes takes as few replicas along as possible.
    {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
    - maxSkew: 1
      topologyKey: {{ . }}
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels: {{- include "serve.selector" $ | nindent 10 }}
      matchLabelKeys: [pod-template-hash]
    {{- end }}
  {{- end }}
  {{- with .Values.image.pullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . | quote }}
    {{- end }}
  {{- end }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    fsGroupChangePolicy: OnRootMismatch
    seccompProfile: {type: RuntimeDefault}
  containers:
    - name: task
      image: {{ .Values.image.reference | quote }}
      imagePullPolicy: {{ .Values.image.pullPolicy }}
      args: [python, -m, thinktune.tasks.serve, --task, /etc/thinktune/task.json]
      env:
        - {name: HOME, value: /scratch}
        - {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
        {{- if .Values.storage.cacheClaim }}
        - {name: THINKTUNE_CACHE, value: /cache}
        {{- end }}
        {{- if include "serve.several" . }}
        - {name: THINKTUNE_NODES, value: {{ .Values.nodes | quote }}}
        - {name: MASTER_PORT, value: "29500"}
        {{- end }}
        {{- if eq .Values.workload "statefulset" }}
        - name: THINKTUNE_NODE_RANK
          valueFrom: {fieldRef: {fieldPath: "metadata.labels['apps.kubernetes.io/pod-index']"}}
        - {name: MASTER_ADDR, value: {{ printf "%s-0.%s" .Release.Name (include "serve.nodes" .) }}}
        {{- end }}
        {{- if eq .Values.workload "leaderworkerset" }}
        # The controller adds LWS_LEADER_ADDRESS, the name of the first node.
        - name: THINKTUNE_NODE_RANK
          valueFrom:
            fieldRef: {fieldPath: "metadata.labels['leaderworkerset.sigs.k8s.io/worker-index']"}
        {{- end }}
        {{- range $name, $value := .Values.env }}
        - {name: {{ $name | quote }}, value: {{ $value | quote }}}
        {{- end }}
      {{- with .Values.access.secrets }}
      envFrom:
        {{- range . }}
        - secretRef: {name: {{ . | quote }}}
        {{- end }}
      {{- end }}
      ports:
        # The only one. vLLM listens on the pod's loopback.
        - {name: gateway, containerPort: {{ .Values.gateway.port | int }}}
      # The engine's own /health says yes while it hangs and while it drains; the gateway asks it for
      # tokens.
      startupProbe:
        httpGet: {path: /readyz, port: gateway}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: {{ .Values.seconds.startupChecks | int64 }}
      readinessProbe:
        httpGet: {path: /readyz, port: gateway}
        periodSeconds: 5
        timeoutSeconds: 5
        failureThreshold: 2
      # Of the gateway alone: it restarts an engine that hangs by itself.
      livenessProbe:
        httpGet: {path: /healthz, port: gateway}
        periodSeconds: 10
        timeoutSeconds: 10
        failureThreshold: 6
      lifecycle:
        # Until whoever sends requests has heard that this pod takes no more.
        preStop: {exec: {command: [sleep, {{ .Values.seconds.preStop | quote }}]}}
      # The pod's status then shows the last lines of its log.
      terminationMessagePolicy: FallbackToLogsOnError
      resources:
        {{- $sizes := dict "cpu" (printf "%dm" (int $resources.cpuMillis)) "memory" (printf "%dMi" (int $resources.memoryMib)) }}
        {{- /* With a scratch volume, only logs are on the node's own disk. */}}
        {{- $disk := ternary 1 (int $resources.diskGib) (not (not .Values.storage.scratchStorageClass)) }}
        {{- $_ := set $sizes "ephemeral-storage" (printf "%dGi" $disk) }}
        {{- if $resources.gpus }}
        {{- $_ := set $sizes "nvidia.com/gpu" ($resources.gpus | toString) }}
        {{- end }}
        requests: {{- toYaml $sizes | nindent 10 }}
        limits: {{- toYaml $sizes | nindent 10 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts:
        - {name: task, mountPath: /etc/thinktune, readOnly: true}
        - {name: adapters, mountPath: /etc/thinktune-adapters, readOnly: true}
        - {name: key, mountPath: /etc/thinktune-key, readOnly: true}
        - {name: scratch, mountPath: /scratch}
        - {name: scratch, mountPath: /tmp, subPath: tmp}
        - {name: shm, mountPath: /dev/shm}
        {{- if .Values.storage.cacheClaim }}
        - {name: cache, mountPath: /cache}
        {{- end }}
  volumes:
    - name: task
      configMap: {name: {{ .Release.Name }}}
    - name: adapters
      # As a folder: a file that is mounted by its path would never change.
      configMap: {name: {{ include "serve.adapters" . }}}
    - name: key
      secret:
        secretName: {{ .Values.gateway.keySecret | quote }}
        items: [{key: {{ .Values.gateway.keyEntry | quote }}, path: key}]
        # With fsGroup: for this pod's user alone.
        defaultMode: 0440
    - name: scratch
      {{- if .Values.storage.scratchStorageClass }}
      ephemeral:
        volumeClaimTemplate:
          spec:
            accessModes: [ReadWriteOnce]
            storageClassName: {{ .Values.storage.scratchStorageClass | quote }}
            resources: {requests: {storage: {{ $resources.diskGib | int }}Gi}}
      {{- else }}
      emptyDir: {sizeLimit: {{ $resources.diskGib | int }}Gi}
      {{- end }}
    - name: shm
      emptyDir: {medium: Memory, sizeLimit: {{ $resources.shmMib | int }}Mi}
    {{- with .Values.storage.cacheClaim }}
    - name: cache
      persistentVolumeClaim: {claimName: {{ . | quote }}}
    {{- end }}
{{- end -}}
