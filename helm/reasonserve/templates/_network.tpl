{{/* One rule from peers that a value names: (list "from" peers ports). Without peers there is no rule, so nobody may. */}}
{{- define "reasonserve.rule" -}}
{{- $direction := index . 0 -}}
{{- if index . 1 -}}
- {{ $direction }}:
    {{- toYaml (index . 1) | nindent 4 }}
  ports:
    {{- range index . 2 }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
{{- end -}}
{{- end -}}

{{/* One rule from pods of this release: (list $ "from" (list "gateway") ports); no ports means all. */}}
{{- define "reasonserve.ownRule" -}}
{{- $root := index . 0 -}}
- {{ index . 1 }}:
    - podSelector:
        matchLabels:
          app.kubernetes.io/name: {{ $root.Chart.Name }}
          app.kubernetes.io/instance: {{ $root.Release.Name }}
        matchExpressions:
          - key: app.kubernetes.io/component
            operator: In
            values: [{{ join ", " (index . 2) }}]
  {{- with index . 3 }}
  ports:
    {{- range . }}
    - {protocol: TCP, port: {{ . }}}
    {{- end }}
  {{- end }}
{{- end -}}

{{- define "reasonserve.dnsEgress" -}}
- to:
    {{- toYaml .Values.networkPolicy.dns | nindent 4 }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

{{/* Where every pod of ours that traces may go: names, and the trace collector where there is one. */}}
{{- define "reasonserve.commonEgress" -}}
{{ include "reasonserve.dnsEgress" . }}
{{- with (include "reasonserve.setting" (list . "telemetry" "otlp_endpoint") | fromJson).value }}
{{ include "reasonserve.rule" (list "to" $.Values.networkPolicy.collector (list (include "reasonserve.urlPort" . | int))) }}
{{- end }}
{{- end -}}

{{/* Port of a URL of scheme and authority. */}}
{{- define "reasonserve.urlPort" -}}
{{- $parts := urlParse . -}}
{{- $explicit := regexFind ":[0-9]+$" $parts.host | trimPrefix ":" -}}
{{- default (ternary "443" "4317" (eq $parts.scheme "https")) $explicit -}}
{{- end -}}

{{- define "reasonserve.policyHead" -}}
{{- $root := index . 0 -}}
{{- $component := index . 1 -}}
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "reasonserve.fullname" $root }}-{{ $component }}
  namespace: {{ $root.Release.Namespace }}
  labels:
    {{- include "reasonserve.labels" (list $root $component) | nindent 4 }}
spec:
  podSelector:
    matchLabels:
      {{- include "reasonserve.selector" (list $root $component) | nindent 6 }}
  policyTypes: [Ingress, Egress]
{{- end -}}
