{{/* Security of a pod: passes the Pod Security Standard "restricted". */}}
{{- define "reasonserve.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ int64 .Values.podSecurity.runAsUser }}
runAsGroup: {{ int64 .Values.podSecurity.runAsGroup }}
fsGroup: {{ int64 .Values.podSecurity.fsGroup }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end -}}

{{- define "reasonserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: {{ .Values.podSecurity.readOnlyRootFilesystem }}
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Where a pod may run: (list $ .Values.controller "controller"). */}}
{{- define "reasonserve.placement" -}}
{{- $root := index . 0 -}}
{{- $part := index . 1 -}}
{{- $component := index . 2 -}}
{{- with $part.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $part.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- if $part.topologySpread }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: {{ $part.topologySpread }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "reasonserve.selector" (list $root $component) | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Variables that connect every process to the controller and the trace collector. */}}
{{- define "reasonserve.environment" -}}
- name: OTEL_SERVICE_NAME
  value: reasonserve
{{- range $key := list "otlp_endpoint" "sampling_ratio" "record_content" "log_format" "max_tenant_labels" }}
{{- $value := (include "reasonserve.setting" (list $ "telemetry" $key) | fromJson).value }}
{{- if not (kindIs "invalid" $value) }}
- name: REASONSERVE_{{ upper $key }}
  value: {{ toString $value | quote }}
{{- end }}
{{- end }}
{{- if .Values.controller.tls.existingSecret }}
- name: REASONSERVE_CONTROLLER_TLS_CA_FILE
  value: /etc/reasonserve/controller-ca/ca.crt
{{- if .Values.controller.tls.clientSecret }}
- name: REASONSERVE_CONTROLLER_TLS_CERT_FILE
  value: /etc/reasonserve/controller-client/tls.crt
- name: REASONSERVE_CONTROLLER_TLS_KEY_FILE
  value: /etc/reasonserve/controller-client/tls.key
{{- end }}
{{- end }}
{{- end -}}

{{/* Variables of every Ray node; Ray Serve reads them when it starts, so they are the same on all. */}}
{{- define "reasonserve.rayEnvironment" -}}
{{ include "reasonserve.environment" . }}
- name: OTEL_SPAN_EVENT_COUNT_LIMIT
  value: "4096"
- name: RAY_SERVE_TRACING_EXPORTER_IMPORT_PATH
  value: reasonserve.telemetry.export:span_processors
- name: RAY_SERVE_TRACING_SAMPLING_RATIO
  value: {{ (include "reasonserve.setting" (list . "telemetry" "sampling_ratio") | fromJson).value | toString | quote }}
- name: RAY_SERVE_GRPC_MAX_MESSAGE_SIZE
  value: {{ max 16777216 (mul 4 (int64 (include "reasonserve.setting" (list . "gateway" "max_input_bytes") | fromJson).value)) | quote }}
{{- if not .Values.ray.tokenAuthentication }}
- name: RAY_AUTH_MODE
  value: disabled
{{- end }}
- name: RAY_SERVE_USE_GRPC_BY_DEFAULT
  value: "1"
- name: RAY_SERVE_RUN_ROUTER_IN_SEPARATE_LOOP
  value: "0"
- name: RAY_SERVE_RUN_USER_CODE_IN_SEPARATE_THREAD
  value: "0"
- name: RAY_USAGE_STATS_ENABLED
  value: "0"
- name: OMP_WAIT_POLICY
  value: PASSIVE
- name: GOMP_SPINCOUNT
  value: "0"
- name: HOME
  value: /tmp
- name: REASONSERVE_CACHE
  value: {{ .Values.model.mountPath }}
- name: HF_HOME
  value: {{ .Values.model.mountPath }}/huggingface
{{- with .Values.ray.environment }}
{{- range $name, $value := . }}
- name: {{ $name }}
  value: {{ $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Secrets and scratch space that every Ray node and every client of the controller mounts. */}}
{{- define "reasonserve.mounts" -}}
- name: tmp
  mountPath: /tmp
- name: admin-token
  mountPath: {{ .Values.adminToken.mountPath }}
  readOnly: true
{{- if .Values.controller.tls.existingSecret }}
- name: controller-ca
  mountPath: /etc/reasonserve/controller-ca
  readOnly: true
{{- if .Values.controller.tls.clientSecret }}
- name: controller-client
  mountPath: /etc/reasonserve/controller-client
  readOnly: true
{{- end }}
{{- end }}
{{- end -}}

{{- define "reasonserve.volumes" -}}
- name: tmp
  emptyDir: {}
- name: admin-token
  secret:
    secretName: {{ .Values.adminToken.existingSecret }}
    defaultMode: 0440
    items:
      - key: {{ .Values.adminToken.key }}
        path: {{ .Values.adminToken.key }}
{{- if .Values.controller.tls.existingSecret }}
- name: controller-ca
  secret:
    secretName: {{ .Values.controller.tls.existingSecret }}
    defaultMode: 0440
    items:
      - key: ca.crt
        path: ca.crt
{{- with .Values.controller.tls.clientSecret }}
- name: controller-client
  secret:
    secretName: {{ . }}
    defaultMode: 0440
{{- end }}
{{- end }}
{{- end -}}
