{{/* Ray nodes on CPUs, one gateway each. */}}
{{- define "reasonserve.gatewayGroup" -}}
{{- $grpcPort := include "reasonserve.port" (list . "gateway" "port") | int -}}
{{- $httpPort := include "reasonserve.port" (list . "gateway" "http_port") | int -}}
- groupName: gateway
  replicas: {{ .Values.gateway.minReplicas }}
  minReplicas: {{ .Values.gateway.minReplicas }}
  maxReplicas: {{ .Values.gateway.maxReplicas }}
  idleTimeoutSeconds: {{ .Values.gateway.idleTimeoutSeconds }}
  resources:
    reasonserve_gateway: "1"
  rayStartParams:
    metrics-export-port: {{ include "reasonserve.port" (list . "telemetry" "metrics_port") | quote }}
    object-store-memory: {{ int64 .Values.ray.objectStoreBytes | quote }}
  template:
    metadata:
      labels:
        {{- include "reasonserve.podLabels" (list . "gateway") | nindent 8 }}
      {{- with .Values.gateway.podAnnotations }}
      annotations:
        {{- toYaml . | nindent 8 }}
      {{- end }}
    spec:
      serviceAccountName: {{ include "reasonserve.serviceAccount" (list . "worker") }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add (include "reasonserve.drain" .) 30 }}
      {{- include "reasonserve.pullSecrets" . | nindent 6 }}
      securityContext:
        {{- include "reasonserve.podSecurity" . | nindent 8 }}
      {{- include "reasonserve.placement" (list . .Values.gateway "gateway") | nindent 6 }}
      containers:
        - name: ray-worker
          image: {{ include "reasonserve.image" (list . .Values.images.control) }}
          imagePullPolicy: {{ .Values.images.control.pullPolicy }}
          securityContext:
            {{- include "reasonserve.containerSecurity" . | nindent 12 }}
          env:
            {{- include "reasonserve.rayEnvironment" . | nindent 12 }}
          ports:
            {{- include "reasonserve.workerPorts" . | nindent 12 }}
          {{- include "reasonserve.workerProbe" . | nindent 10 }}
          lifecycle:
            preStop:
              exec:
                # The pod has left the Service; streams that run get this long to end.
                command: [sleep, {{ include "reasonserve.drain" . | quote }}]
          resources:
            {{- toYaml .Values.gateway.resources | nindent 12 }}
          volumeMounts:
            {{- include "reasonserve.mounts" . | nindent 12 }}
      volumes:
        {{- include "reasonserve.volumes" . | nindent 8 }}
{{- end -}}

{{- define "reasonserve.workerPorts" -}}
{{- $incremental := eq .Values.upgrade.strategy "NewClusterWithIncrementalUpgrade" -}}
- name: metrics
  containerPort: {{ include "reasonserve.port" (list . "telemetry" "metrics_port") }}
- name: {{ ternary "http" "serve" $incremental }}
  containerPort: {{ include "reasonserve.port" (list . "gateway" "http_port") }}
- name: {{ ternary "serve" "serve-grpc" $incremental }}
  containerPort: {{ include "reasonserve.port" (list . "gateway" "port") }}
{{- end -}}

{{/* Ready when Ray Serve's proxy on the node routes; the liveness probe is Ray's operator's. */}}
{{- define "reasonserve.workerProbe" -}}
readinessProbe:
  httpGet:
    path: /-/healthz
    port: {{ include "reasonserve.port" (list . "gateway" "http_port") }}
  initialDelaySeconds: 10
  periodSeconds: 5
  timeoutSeconds: 2
  failureThreshold: 1
{{- end -}}

{{/* Ray nodes with accelerators, or without for tests: (list $ group). */}}
{{- define "reasonserve.replicaGroup" -}}
{{- $root := index . 0 -}}
{{- $group := index . 1 -}}
{{- $folder := include "reasonserve.modelIsFolder" $root -}}
- groupName: {{ $group.name }}
  replicas: {{ $group.minReplicas }}
  minReplicas: {{ $group.minReplicas }}
  maxReplicas: {{ $group.maxReplicas }}
  idleTimeoutSeconds: {{ $group.idleTimeoutSeconds }}
  resources:
    reasonserve_replica: {{ $group.replicasPerPod | quote }}
  rayStartParams:
    metrics-export-port: {{ include "reasonserve.port" (list $root "telemetry" "metrics_port") | quote }}
    object-store-memory: {{ int64 $root.Values.ray.objectStoreBytes | quote }}
  template:
    metadata:
      labels:
        {{- include "reasonserve.podLabels" (list $root "replica") | nindent 8 }}
      annotations:
        # The init container brings the model: another one needs new nodes.
        reasonserve/model: {{ include "reasonserve.model" $root | quote }}
        {{- with $group.podAnnotations }}
        {{- toYaml . | nindent 8 }}
        {{- end }}
    spec:
      serviceAccountName: {{ include "reasonserve.serviceAccount" (list $root "worker") }}
      automountServiceAccountToken: false
      enableServiceLinks: false
      terminationGracePeriodSeconds: {{ add (include "reasonserve.drain" $root) 30 }}
      {{- with $group.runtimeClassName }}
      runtimeClassName: {{ . }}
      {{- end }}
      {{- include "reasonserve.pullSecrets" $root | nindent 6 }}
      securityContext:
        {{- include "reasonserve.podSecurity" $root | nindent 8 }}
      {{- include "reasonserve.placement" (list $root $group "replica") | nindent 6 }}
      initContainers:
        - name: prepare
          image: {{ include "reasonserve.image" (list $root $root.Values.images.engine) }}
          imagePullPolicy: {{ $root.Values.images.engine.pullPolicy }}
          command: [python, -m, reasonserve.node.prepare]
          args:
            - --config=/etc/reasonserve/config/config.yaml
            - --controller={{ include "reasonserve.controllerEndpoint" $root }}
            - --admin-token-file={{ include "reasonserve.adminTokenFile" $root }}
          securityContext:
            {{- include "reasonserve.containerSecurity" $root | nindent 12 }}
          env:
            {{- include "reasonserve.rayEnvironment" $root | nindent 12 }}
            {{- with $root.Values.model.hubToken.existingSecret }}
            - name: HF_TOKEN
              valueFrom:
                secretKeyRef:
                  name: {{ . }}
                  key: {{ $root.Values.model.hubToken.key }}
            {{- end }}
          resources:
            {{- toYaml $root.Values.model.prepareResources | nindent 12 }}
          volumeMounts:
            {{- include "reasonserve.mounts" $root | nindent 12 }}
            - name: config
              mountPath: /etc/reasonserve/config
              readOnly: true
            - name: models
              mountPath: {{ $root.Values.model.mountPath }}
              {{- if $folder }}
              readOnly: true
              {{- end }}
      containers:
        - name: ray-worker
          image: {{ include "reasonserve.image" (list $root $root.Values.images.engine) }}
          imagePullPolicy: {{ $root.Values.images.engine.pullPolicy }}
          securityContext:
            {{- include "reasonserve.containerSecurity" $root | nindent 12 }}
          env:
            {{- include "reasonserve.rayEnvironment" $root | nindent 12 }}
            # The init container brought the model: a replica that starts needs no hub.
            - name: HF_HUB_OFFLINE
              value: "1"
          ports:
            {{- include "reasonserve.workerPorts" $root | nindent 12 }}
          {{- include "reasonserve.workerProbe" $root | nindent 10 }}
          lifecycle:
            preStop:
              exec:
                # Ray Serve's own drain of a replica; a node that goes away gets the same.
                command: [sleep, {{ include "reasonserve.drain" $root | quote }}]
          resources:
            {{- include "reasonserve.replicaResources" (list $group) | nindent 12 }}
          volumeMounts:
            {{- include "reasonserve.mounts" $root | nindent 12 }}
            - name: models
              mountPath: {{ $root.Values.model.mountPath }}
              readOnly: true
      volumes:
        {{- include "reasonserve.volumes" $root | nindent 8 }}
        - name: config
          configMap:
            name: {{ include "reasonserve.fullname" $root }}-config
        - name: models
          {{- include "reasonserve.modelVolume" $root | nindent 10 }}
{{- end -}}

{{- define "reasonserve.replicaResources" -}}
{{- $group := index . 0 -}}
{{- range $kind := list "requests" "limits" }}
{{ $kind }}:
  {{- with index $group.resources $kind }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
  {{- if $group.gpusPerPod }}
  {{ $group.gpuResource }}: {{ $group.gpusPerPod }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "reasonserve.modelVolume" -}}
{{- $volume := .Values.model.volume -}}
{{- if eq $volume.type "persistentVolumeClaim" -}}
persistentVolumeClaim:
  claimName: {{ $volume.claimName }}
{{- else if eq $volume.type "hostPath" -}}
hostPath:
  path: {{ $volume.hostPath }}
  type: Directory
{{- else -}}
emptyDir:
  sizeLimit: {{ $volume.sizeLimit }}
{{- end -}}
{{- end -}}
