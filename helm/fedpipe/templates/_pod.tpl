{{/* What every pod of ours has in common. */}}

{{/* Fields of a pod's spec. (dict "root" $ "name" "api") */}}
{{- define "fedpipe.pod" -}}
serviceAccountName: {{ include "fedpipe.component" . }}
automountServiceAccountToken: false
# Kubernetes would add a variable for each Service, and ours begin with FEDPIPE_ too.
enableServiceLinks: false
securityContext:
  runAsNonRoot: true
  {{- with .root.Values.podSecurity.runAsUser }}
  runAsUser: {{ int64 . }}
  runAsGroup: {{ int64 . }}
  {{- end }}
  {{- with .root.Values.podSecurity.fsGroup }}
  fsGroup: {{ int64 . }}
  fsGroupChangePolicy: OnRootMismatch
  {{- end }}
  seccompProfile:
    type: RuntimeDefault
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "fedpipe.container" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities:
    drop: [ALL]
{{- end -}}

{{/* Where telemetry is pushed, and how. */}}
{{- define "fedpipe.env.otlp" -}}
{{- with .Values.telemetry.otlp.endpoint }}
- name: OTEL_EXPORTER_OTLP_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.telemetry.otlp.tls }}
{{- if .existingSecret }}
{{- range $name, $key := dict "CERTIFICATE" .ca "CLIENT_CERTIFICATE" .certificate "CLIENT_KEY" .key }}
{{- if $key }}
- name: OTEL_EXPORTER_OTLP_{{ $name }}
  value: /etc/fedpipe/collector/{{ $key }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- range $name, $value := .Values.telemetry.otlp.variables }}
- name: {{ $name }}
  {{- if kindIs "string" $value }}
  value: {{ $value | quote }}
  {{- else }}
  valueFrom:
    {{- toYaml $value | nindent 4 }}
  {{- end }}
{{- end }}
{{- end -}}

{{/* /healthz: the process lives; /readyz: it can work, or why not. */}}
{{- define "fedpipe.probes" -}}
startupProbe:
  httpGet: { path: /healthz, port: health }
  periodSeconds: 2
  failureThreshold: 60
livenessProbe:
  httpGet: { path: /healthz, port: health }
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  httpGet: { path: /readyz, port: health }
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 3
{{- end -}}

{{/* Metadata of a pod's template. (dict "root" $ "name" "api" "config" "…") */}}
{{- define "fedpipe.pod.metadata" -}}
labels:
  {{- include "fedpipe.labels" . | nindent 2 }}
annotations:
  checksum/config: {{ sha256sum .config }}
  {{- if .root.Values.telemetry.scrape }}
  prometheus.io/scrape: "true"
  prometheus.io/port: "9090"
  prometheus.io/path: /metrics
  {{- end }}
{{- end -}}

{{/* Pods of one service lie on different nodes and in different zones where there are some. */}}
{{- define "fedpipe.spread" -}}
topologySpreadConstraints:
  {{- range list "kubernetes.io/hostname" "topology.kubernetes.io/zone" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "fedpipe.selector" $ | nindent 8 }}
  {{- end }}
{{- end -}}

{{/* (dict "nodeSelector" … "tolerations" …) */}}
{{- define "fedpipe.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "fedpipe.account" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "fedpipe.component" . }}
  labels:
    {{- include "fedpipe.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- end -}}

{{- define "fedpipe.budget" -}}
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "fedpipe.component" . }}
  labels:
    {{- include "fedpipe.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  selector:
    matchLabels:
      {{- include "fedpipe.selector" . | nindent 6 }}
{{- end -}}
