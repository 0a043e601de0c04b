{{/* Ray Serve's configuration: what its operator sends to the cluster, and what the tests load. */}}
{{- define "reasonserve.serveConfig" -}}
{{- $gateway := .Values.gateway -}}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0
  port: {{ include "reasonserve.port" (list . "gateway" "http_port") }}
grpc_options:
  port: {{ include "reasonserve.port" (list . "gateway" "port") }}
  grpc_servicer_functions:
    - reasonserve.gateway.proxy.add_generation_service
applications:
  - name: reasonserve
    route_prefix: /
    import_path: reasonserve.app:from_arguments
    args:
      controller_endpoint: {{ include "reasonserve.controllerEndpoint" . }}
      admin_token_file: {{ include "reasonserve.adminTokenFile" . }}
      config:
        {{- toYaml .Values.config | nindent 8 }}
    deployments:
      - name: Gateway
        {{- if eq (int $gateway.minReplicas) (int $gateway.maxReplicas) }}
        num_replicas: {{ $gateway.minReplicas }}
        {{- else }}
        autoscaling_config:
          min_replicas: {{ $gateway.minReplicas }}
          max_replicas: {{ $gateway.maxReplicas }}
          target_ongoing_requests: {{ $gateway.targetOngoingRequests }}
        {{- end }}
        ray_actor_options:
          num_cpus: 0.1
          resources:
            reasonserve_gateway: 1
      - name: Replica
        ray_actor_options:
          num_cpus: {{ (include "reasonserve.setting" (list . "replicas" "num_cpus") | fromJson).value }}
          num_gpus: {{ (include "reasonserve.setting" (list . "replicas" "num_gpus") | fromJson).value }}
          resources:
            reasonserve_replica: 1
{{- end -}}
