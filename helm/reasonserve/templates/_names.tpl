{{/* Name of everything in a release; Ray's operator appends up to 16 characters to a RayService's. */}}
{{- define "reasonserve.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name -}}
{{- end -}}
{{- end -}}

{{/* Labels that select the pods of one component: (list $ "controller"). */}}
{{- define "reasonserve.selector" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ $root.Chart.Name }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Labels of Ray's pods: no chart version, for a changed label would make Ray's operator build a new cluster. */}}
{{- define "reasonserve.podLabels" -}}
{{ include "reasonserve.selector" . }}
{{- with (index . 0).Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Labels of an object: (list $ "controller"). */}}
{{- define "reasonserve.labels" -}}
{{- $root := index . 0 -}}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version }}
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
app.kubernetes.io/part-of: {{ $root.Chart.Name }}
{{ include "reasonserve.podLabels" . }}
{{- end -}}

{{/* An image's reference; a digest wins over a tag: (list $ .Values.images.control). */}}
{{- define "reasonserve.image" -}}
{{- $root := index . 0 -}}
{{- $image := index . 1 -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $image.repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.pullSecrets" -}}
{{- with .Values.images.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* One key of the configuration file as JSON under "value": (list $ "gateway" "port"). Files hold what is left out. */}}
{{- define "reasonserve.setting" -}}
{{- $root := first . -}}
{{- $given := $root.Values.config -}}
{{- $isGiven := true -}}
{{- $default := $root.Files.Get "files/config-defaults.yaml" | fromYaml -}}
{{- range rest . -}}
{{- $default = index $default . -}}
{{- if and $isGiven (kindIs "map" $given) (hasKey ($given | default dict) .) -}}
{{- $given = index $given . -}}
{{- else -}}
{{- $isGiven = false -}}
{{- end -}}
{{- end -}}
{{- dict "value" (ternary $given $default $isGiven) | toJson -}}
{{- end -}}

{{/* Seconds that running requests get to end wherever a pod must go. */}}
{{- define "reasonserve.drain" -}}
{{- (include "reasonserve.setting" (list . "replicas" "drain_s") | fromJson).value | float64 | ceil | int -}}
{{- end -}}

{{- define "reasonserve.port" -}}
{{- (include "reasonserve.setting" . | fromJson).value | int -}}
{{- end -}}

{{- define "reasonserve.model" -}}
{{- .Values.config.model | default (.Files.Get "files/config-defaults.yaml" | fromYaml).model -}}
{{- end -}}

{{/* Whether the configured model is a folder of the model volume, and not fetched by name. */}}
{{- define "reasonserve.modelIsFolder" -}}
{{- if hasPrefix "/" (include "reasonserve.model" .) -}}true{{- end -}}
{{- end -}}

{{- define "reasonserve.controllerEndpoint" -}}
{{- if .Values.controller.enabled -}}
{{- printf "%s-controller.%s.svc:%s" (include "reasonserve.fullname" .) .Release.Namespace (include "reasonserve.port" (list . "controller" "port")) -}}
{{- else -}}
{{- .Values.controller.endpoint -}}
{{- end -}}
{{- end -}}

{{/* The Service of the gateways: Ray's operator's, or ours where its own bears the name of a cluster that comes and goes. */}}
{{- define "reasonserve.serveService" -}}
{{- $incremental := eq .Values.upgrade.strategy "NewClusterWithIncrementalUpgrade" -}}
{{- printf "%s-%s" (include "reasonserve.fullname" .) (ternary "direct" "serve-svc" $incremental) -}}
{{- end -}}

{{- define "reasonserve.adminTokenFile" -}}
{{- printf "%s/%s" .Values.adminToken.mountPath .Values.adminToken.key -}}
{{- end -}}

{{- define "reasonserve.serviceAccount" -}}
{{- printf "%s-%s" (include "reasonserve.fullname" (index . 0)) (index . 1) -}}
{{- end -}}

{{/* The replica groups as JSON under "groups", each with what it leaves out; a zero is a value, so nothing is merged. */}}
{{- define "reasonserve.groups" -}}
{{- $groups := list -}}
{{- range .Values.replicaGroups -}}
{{- $group := $.Files.Get "files/group-defaults.yaml" | fromYaml -}}
{{- range $key, $value := . -}}
{{- $_ := set $group $key $value -}}
{{- end -}}
{{- $groups = append $groups $group -}}
{{- end -}}
{{- dict "groups" $groups | toJson -}}
{{- end -}}
