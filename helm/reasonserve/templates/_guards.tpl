{{/* Values that contradict each other: what was given, what is allowed, what to do. The schema has seen each alone. */}}
{{- define "reasonserve.guards" -}}
{{- include "reasonserve.guardNames" . -}}
{{- include "reasonserve.guardController" . -}}
{{- include "reasonserve.guardConfig" . -}}
{{- include "reasonserve.guardGateway" . -}}
{{- include "reasonserve.guardGroups" . -}}
{{- include "reasonserve.guardModel" . -}}
{{- include "reasonserve.guardUpgrade" . -}}
{{- include "reasonserve.guardFront" . -}}
{{- include "reasonserve.guardPorts" . -}}
{{- include "reasonserve.guardNetwork" . -}}
{{- include "reasonserve.guardRay" . -}}
{{- end -}}

{{- define "reasonserve.guardNames" -}}
{{- $name := include "reasonserve.fullname" . -}}
{{- if gt (len $name) 47 -}}
{{- fail (printf "The name %q has %d characters; Ray's operator allows 47. Choose a shorter release name, or set fullnameOverride." $name (len $name)) -}}
{{- end -}}
{{- if not (regexMatch "^[a-z]" $name) -}}
{{- fail (printf "The name %q begins with a digit; Ray's operator wants a letter. Choose another release name, or set fullnameOverride." $name) -}}
{{- end -}}
{{- if not .Values.adminToken.existingSecret -}}
{{- fail (printf "adminToken.existingSecret is empty; the controller, the gateways and the replicas share a token from a Secret. Run: kubectl -n %s create secret generic reasonserve-admin --from-literal=%s=\"$(openssl rand -hex 32)\" and set adminToken.existingSecret=reasonserve-admin." .Release.Namespace .Values.adminToken.key) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardController" -}}
{{- $controller := .Values.controller -}}
{{- $database := $controller.database -}}
{{- if $controller.enabled -}}
{{- if $controller.endpoint -}}
{{- fail (printf "controller.endpoint is %q and controller.enabled is true; only one can hold. Empty the endpoint to run a controller here, or set controller.enabled=false to use that one." $controller.endpoint) -}}
{{- end -}}
{{- else if not $controller.endpoint -}}
{{- fail "controller.enabled is false and controller.endpoint is empty; replicas need a controller. Set controller.endpoint=HOST:PORT, or controller.enabled=true." -}}
{{- end -}}
{{- if and (gt (int $controller.replicas) 1) (eq $database.type "sqlite") -}}
{{- fail (printf "controller.replicas is %d with controller.database.type sqlite; the file is in the volume of one pod. Set controller.replicas=1, or controller.database.type=postgresql with a Secret." (int $controller.replicas)) -}}
{{- end -}}
{{- if and (eq $database.type "postgresql") (not $database.postgresql.existingSecret) -}}
{{- fail "controller.database.type is postgresql and controller.database.postgresql.existingSecret is empty; the URL with its password comes from a Secret. Create one with the key \"url\" and name it there." -}}
{{- end -}}
{{- if and (eq $database.type "sqlite") $database.postgresql.existingSecret -}}
{{- fail (printf "controller.database.postgresql.existingSecret is %q and controller.database.type is sqlite, which would leave it unused. Set controller.database.type=postgresql, or empty the Secret's name." $database.postgresql.existingSecret) -}}
{{- end -}}
{{- if and $database.sqlite.existingClaim (not $database.sqlite.persistent) -}}
{{- fail (printf "controller.database.sqlite.existingClaim is %q and controller.database.sqlite.persistent is false; the claim would stay unused and tenants be lost with the pod. Set persistent=true, or empty the claim's name." $database.sqlite.existingClaim) -}}
{{- end -}}
{{- if and $controller.tls.clientSecret (not $controller.tls.existingSecret) -}}
{{- fail (printf "controller.tls.clientSecret is %q and controller.tls.existingSecret is empty; certificates of clients need a controller with TLS. Name its Secret, or empty clientSecret." $controller.tls.clientSecret) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardConfig" -}}
{{- $given := .Values.config.controller | default dict -}}
{{- if $given.database_url -}}
{{- fail "config.controller.database_url is set; it may hold a password, and the configuration file is no Secret. Set controller.database.type=postgresql and controller.database.postgresql.existingSecret instead." -}}
{{- end -}}
{{- if hasKey $given "host" -}}
{{- fail (printf "config.controller.host is %q; in a cluster the controller listens on all addresses of its pod and is found by its Service. Remove the key." $given.host) -}}
{{- end -}}
{{- $entrance := (include "reasonserve.setting" (list . "gateway" "entrance") | fromJson).value -}}
{{- if ne $entrance "proxy" -}}
{{- fail (printf "config.gateway.entrance is %q; Ray's operator sends calls to any ready node, so each needs a proxy to the gateways. Set it to proxy." $entrance) -}}
{{- end -}}
{{- $telemetry := .Values.config.telemetry | default dict -}}
{{- if $telemetry.trace_file -}}
{{- fail (printf "config.telemetry.trace_file is %q; each pod would write a file of its own and lose it. Remove the key, and set config.telemetry.otlp_endpoint." $telemetry.trace_file) -}}
{{- end -}}
{{- if $telemetry.log_file -}}
{{- fail (printf "config.telemetry.log_file is %q; in a cluster logs go to the pod's standard error stream, where collectors find them. Remove the key." $telemetry.log_file) -}}
{{- end -}}
{{- if not (include "reasonserve.setting" (list . "telemetry" "metrics_port") | fromJson).value -}}
{{- fail "config.telemetry.metrics_port is null; a pod's ports are declared beforehand. Set a port, such as 8080." -}}
{{- end -}}
{{- range $key := list "host" "tls_cert" "tls_key" "client_ca" "health_port" -}}
{{- if hasKey ($.Values.config.front | default dict) $key -}}
{{- fail (printf "config.front.%s is set; in a cluster the front's addresses and certificates are the chart's. Remove the key, and set front.tlsSecret." $key) -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardGateway" -}}
{{- $gateway := .Values.gateway -}}
{{- if gt (int $gateway.minReplicas) (int $gateway.maxReplicas) -}}
{{- fail (printf "gateway.minReplicas is %d and gateway.maxReplicas is %d; the minimum may not exceed the maximum. Raise maxReplicas, or lower minReplicas." (int $gateway.minReplicas) (int $gateway.maxReplicas)) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardGroups" -}}
{{- $count := (include "reasonserve.setting" (list . "replicas" "count") | fromJson).value | int -}}
{{- $gpus := (include "reasonserve.setting" (list . "replicas" "num_gpus") | fromJson).value | float64 -}}
{{- $room := 0 -}}
{{- $names := list "head" "gateway" -}}
{{- range (include "reasonserve.groups" . | fromJson).groups -}}
{{- if has .name $names -}}
{{- fail (printf "replicaGroups has the name %q twice, or it is the chart's own; allowed are different names other than head and gateway. Rename the group." .name) -}}
{{- end -}}
{{- $names = append $names .name -}}
{{- if gt (int .minReplicas) (int .maxReplicas) -}}
{{- fail (printf "replicaGroups: group %q has minReplicas %d and maxReplicas %d; the minimum may not exceed the maximum. Raise maxReplicas, or lower minReplicas." .name (int .minReplicas) (int .maxReplicas)) -}}
{{- end -}}
{{- if and (gt $gpus 0.0) (eq (int .gpusPerPod) 0) -}}
{{- fail (printf "replicaGroups: group %q has gpusPerPod 0 and config.replicas.num_gpus is %v; no replica would ever fit. Set gpusPerPod, or config.replicas.num_gpus=0 for replicas on CPUs." .name $gpus) -}}
{{- end -}}
{{- if and (eq $gpus 0.0) (gt (int .gpusPerPod) 0) -}}
{{- fail (printf "replicaGroups: group %q has gpusPerPod %d and config.replicas.num_gpus is 0; the GPUs would stand idle. Set config.replicas.num_gpus, or gpusPerPod=0." .name (int .gpusPerPod)) -}}
{{- end -}}
{{- if gt (mulf $gpus (float64 .replicasPerPod)) (float64 .gpusPerPod) -}}
{{- fail (printf "replicaGroups: group %q has replicasPerPod %d with config.replicas.num_gpus %v each, and gpusPerPod %d; they do not fit. Lower replicasPerPod, or raise gpusPerPod." .name (int .replicasPerPod) $gpus (int .gpusPerPod)) -}}
{{- end -}}
{{- $room = add $room (mul (int .maxReplicas) (int .replicasPerPod)) -}}
{{- end -}}
{{- $most := (include "reasonserve.setting" (list . "replicas" "scaling" "max_count") | fromJson).value -}}
{{- if and $most (lt (int $most) $count) -}}
{{- fail (printf "config.replicas.scaling.max_count is %d and config.replicas.count is %d; the count is the fewest. Raise max_count, or lower count." (int $most) $count) -}}
{{- end -}}
{{- $most = default $count $most | int -}}
{{- if gt $most (int $room) -}}
{{- fail (printf "config.replicas asks for up to %d replicas and replicaGroups hold %d at most; the others would wait for ever. Raise maxReplicas of a group, or lower config.replicas.count or scaling.max_count." $most (int $room)) -}}
{{- end -}}
{{- $interval := (include "reasonserve.setting" (list . "replicas" "scaling" "interval_s") | fromJson).value | float64 -}}
{{- $window := (include "reasonserve.setting" (list . "replicas" "scaling" "window_s") | fromJson).value | float64 -}}
{{- if le $window $interval -}}
{{- fail (printf "config.replicas.scaling.window_s is %v and interval_s is %v; the window must be longer. Raise window_s, or lower interval_s." $window $interval) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardModel" -}}
{{- $model := include "reasonserve.model" . -}}
{{- $volume := .Values.model.volume -}}
{{- if include "reasonserve.modelIsFolder" . -}}
{{- if not (hasPrefix (printf "%s/" .Values.model.mountPath) $model) -}}
{{- fail (printf "config.model is the folder %q; the volume of models is mounted at %q. Name a folder below it, or set model.mountPath." $model .Values.model.mountPath) -}}
{{- end -}}
{{- if eq $volume.type "emptyDir" -}}
{{- fail (printf "config.model is the folder %q and model.volume.type is emptyDir, which begins empty. Set model.volume.type to persistentVolumeClaim or hostPath, or name a model that can be fetched." $model) -}}
{{- end -}}
{{- if .Values.model.hubToken.existingSecret -}}
{{- fail (printf "model.hubToken.existingSecret is %q and config.model is the folder %q, which is not fetched. Empty the Secret's name, or set config.model to an id of the hub." .Values.model.hubToken.existingSecret $model) -}}
{{- end -}}
{{- end -}}
{{- if ne (eq $volume.type "persistentVolumeClaim") (ne $volume.claimName "") -}}
{{- fail (printf "model.volume.type is %s and model.volume.claimName is %q; a claim's name goes with type persistentVolumeClaim and with no other. Set both, or neither." $volume.type $volume.claimName) -}}
{{- end -}}
{{- if ne (eq $volume.type "hostPath") (ne $volume.hostPath "") -}}
{{- fail (printf "model.volume.type is %s and model.volume.hostPath is %q; a folder of the node goes with type hostPath and with no other. Set both, or neither." $volume.type $volume.hostPath) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardUpgrade" -}}
{{- $upgrade := .Values.upgrade -}}
{{- if eq $upgrade.strategy "NewClusterWithIncrementalUpgrade" -}}
{{- if not $upgrade.incremental.gatewayClassName -}}
{{- fail "upgrade.strategy is NewClusterWithIncrementalUpgrade and upgrade.incremental.gatewayClassName is empty; Ray's operator moves traffic by a Gateway. Name its class, or set upgrade.strategy=NewCluster." -}}
{{- end -}}
{{- if .Values.front.enabled -}}
{{- fail "upgrade.strategy is NewClusterWithIncrementalUpgrade and front.enabled is true; traffic must come through the Gateway that Ray's operator makes. Set front.enabled=false and end TLS at the Gateway, or set upgrade.strategy=NewCluster." -}}
{{- end -}}
{{- if gt (int $upgrade.incremental.stepSizePercent) (int $upgrade.incremental.maxSurgePercent) -}}
{{- fail (printf "upgrade.incremental.stepSizePercent is %d and maxSurgePercent is %d; a step may not exceed the surge. Lower the step, or raise the surge." (int $upgrade.incremental.stepSizePercent) (int $upgrade.incremental.maxSurgePercent)) -}}
{{- end -}}
{{- else if $upgrade.incremental.gatewayClassName -}}
{{- fail (printf "upgrade.incremental.gatewayClassName is %q and upgrade.strategy is %s, which makes no Gateway. Set upgrade.strategy=NewClusterWithIncrementalUpgrade, or empty the class." $upgrade.incremental.gatewayClassName $upgrade.strategy) -}}
{{- end -}}
{{- $drain := include "reasonserve.drain" . | int -}}
{{- if lt (int $upgrade.drainSeconds) $drain -}}
{{- fail (printf "upgrade.drainSeconds is %d and config.replicas.drain_s is %d; the old nodes would go before their streams end. Raise upgrade.drainSeconds, or lower config.replicas.drain_s." (int $upgrade.drainSeconds) $drain) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardFront" -}}
{{- if and .Values.front.enabled (not .Values.front.tlsSecret) -}}
{{- fail "front.enabled is true and front.tlsSecret is empty; the front speaks mTLS alone. Create a Secret with tls.crt, tls.key and ca.crt and name it there, or set front.enabled=false." -}}
{{- end -}}
{{- if and .Values.front.tlsSecret (not .Values.front.enabled) -}}
{{- fail (printf "front.tlsSecret is %q and front.enabled is false, so calls would stay in plain text. Set front.enabled=true, or empty the Secret's name." .Values.front.tlsSecret) -}}
{{- end -}}
{{- if and .Values.front.enabled (ne .Values.gateway.service.type "ClusterIP") -}}
{{- fail (printf "gateway.service.type is %s and front.enabled is true; clients would pass the front by. Set gateway.service.type=ClusterIP and front.service.type instead." .Values.gateway.service.type) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardPorts" -}}
{{- $own := dict
  "config.gateway.port" (include "reasonserve.port" (list . "gateway" "port") | int)
  "config.gateway.http_port" (include "reasonserve.port" (list . "gateway" "http_port") | int)
  "config.telemetry.metrics_port" (include "reasonserve.port" (list . "telemetry" "metrics_port") | int) -}}
{{- $taken := dict "6379" "Ray's GCS" "8265" "Ray's dashboard" "10001" "Ray's client server" "52365" "Ray's agent" -}}
{{- range $key, $port := $own -}}
{{- $other := get $taken (toString $port) -}}
{{- if $other -}}
{{- fail (printf "%s is %d, which is the port of %s on the same node. Choose another." $key $port $other) -}}
{{- end -}}
{{- if and (ge $port 10002) (le $port 19999) -}}
{{- fail (printf "%s is %d; Ray's workers take 10002 to 19999 on the same node. Choose a port outside that range." $key $port) -}}
{{- end -}}
{{- $_ := set $taken (toString $port) $key -}}
{{- end -}}
{{- $front := include "reasonserve.port" (list . "front" "port") | int -}}
{{- if and .Values.front.enabled (eq $front (int .Values.front.healthPort)) -}}
{{- fail (printf "config.front.port and front.healthPort are both %d; clients and the kubelet need a port each. Change one." $front) -}}
{{- end -}}
{{- $controller := include "reasonserve.port" (list . "controller" "port") | int -}}
{{- if eq $controller (include "reasonserve.port" (list . "controller" "metrics_port") | int) -}}
{{- fail (printf "config.controller.port and config.controller.metrics_port are both %d; calls and metrics need a port each. Change one." $controller) -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardNetwork" -}}
{{- $policy := .Values.networkPolicy -}}
{{- if $policy.enabled -}}
{{- if not $policy.clients -}}
{{- fail "networkPolicy.clients is empty; nobody could call. Name who may, or set networkPolicy.enabled=false." -}}
{{- end -}}
{{- if not $policy.rayOperator -}}
{{- fail "networkPolicy.rayOperator is empty; Ray's operator could not configure the cluster. Name its pods." -}}
{{- end -}}
{{- if not $policy.dns -}}
{{- fail "networkPolicy.dns is empty; no pod would find another. Name the cluster's DNS." -}}
{{- end -}}
{{- if not $policy.kubernetesApi -}}
{{- fail "networkPolicy.kubernetesApi is empty; Ray's autoscaler could not ask for nodes. Name the API server's addresses." -}}
{{- end -}}
{{- if and (include "reasonserve.setting" (list . "telemetry" "otlp_endpoint") | fromJson).value (not $policy.collector) -}}
{{- fail "config.telemetry.otlp_endpoint is set and networkPolicy.collector is empty; no trace would arrive. Name the collector, or remove the endpoint." -}}
{{- end -}}
{{- if and (eq .Values.controller.database.type "postgresql") .Values.controller.enabled (not $policy.database) -}}
{{- fail "controller.database.type is postgresql and networkPolicy.database is empty; the controller could not reach it. Name the database." -}}
{{- end -}}
{{- if and (not .Values.controller.enabled) (not $policy.externalController) -}}
{{- fail "controller.endpoint is set and networkPolicy.externalController is empty; replicas could not reach it. Name the controller." -}}
{{- end -}}
{{- if and (not (include "reasonserve.modelIsFolder" .)) (not $policy.modelHub) -}}
{{- fail (printf "config.model %q is fetched and networkPolicy.modelHub is empty; it could not be. Name the hub's addresses, or serve a folder of a volume." (include "reasonserve.model" .)) -}}
{{- end -}}
{{- if and .Values.monitoring.enabled (not $policy.monitoring) -}}
{{- fail "monitoring.enabled is true and networkPolicy.monitoring is empty; no metric could be read. Name who may, or set monitoring.enabled=false." -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "reasonserve.guardRay" -}}
{{- $own := list -}}
{{- $values := deepCopy .Values -}}
{{- $_ := set $values.ray "environment" dict -}}
{{- range include "reasonserve.rayEnvironment" (dict "Values" $values "Files" .Files "Release" .Release "Chart" .Chart) | fromYamlArray -}}
{{- $own = append $own .name -}}
{{- end -}}
{{- range $name, $_ := .Values.ray.environment -}}
{{- if has $name $own -}}
{{- fail (printf "ray.environment sets %s, which the chart sets itself. Remove it; docs/kubernetes.md names the value that it comes from." $name) -}}
{{- end -}}
{{- end -}}
{{- range .Values.commonLabels | keys -}}
{{- if hasPrefix "app.kubernetes.io/" . -}}
{{- fail (printf "commonLabels has %s; the chart selects pods by the labels app.kubernetes.io/... and sets them itself. Choose another label." .) -}}
{{- end -}}
{{- end -}}
{{- end -}}
