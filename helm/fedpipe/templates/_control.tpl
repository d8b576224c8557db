{{/*
A control service: account, configuration, Deployment, budget.
(dict "root" $ "name" "planner" "values" .Values.planner "config" "its own part of the TOML" "env" "" "ports" "" "volumes" "" "mounts" "")
*/}}
{{- define "fedpipe.control" -}}
{{- $root := .root -}}
{{- $config := printf "%s%s\n" .config (include "fedpipe.config" $root) -}}
{{- $name := include "fedpipe.component" . -}}
{{ include "fedpipe.account" . }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $name }}
  labels:
    {{- include "fedpipe.labels" . | nindent 4 }}
data:
  {{ .name }}.toml: |
    {{- $config | nindent 4 }}
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: {{ $name }}
  labels:
    {{- include "fedpipe.labels" . | nindent 4 }}
spec:
  {{- if not (dig "autoscaling" "enabled" false .values) }}
  replicas: {{ int .values.replicas }}
  {{- end }}
  revisionHistoryLimit: 5
  # The new pod is ready before an old one ends; each job's new owner goes on from what is stored.
  strategy:
    type: RollingUpdate
    rollingUpdate: { maxUnavailable: 0, maxSurge: 1 }
  selector:
    matchLabels:
      {{- include "fedpipe.selector" . | nindent 6 }}
  template:
    metadata:
      {{- include "fedpipe.pod.metadata" (dict "root" $root "name" .name "config" $config) | nindent 6 }}
    spec:
      {{- include "fedpipe.pod" . | nindent 6 }}
      {{- with $root.Values.priorityClassName }}
      priorityClassName: {{ . }}
      {{- end }}
      terminationGracePeriodSeconds: {{ add 30 (dig "preStopSleepSeconds" 0 .values | int) }}
      {{- include "fedpipe.spread" . | nindent 6 }}
      {{- include "fedpipe.placement" .values | nindent 6 }}
      containers:
        - name: {{ .name }}
          image: {{ include "fedpipe.image" (dict "image" $root.Values.image "tag" $root.Chart.AppVersion) }}
          imagePullPolicy: {{ $root.Values.image.pullPolicy }}
          args: [{{ .name }}, --config, /etc/fedpipe/config/{{ .name }}.toml]
          {{- include "fedpipe.container" . | nindent 10 }}
          env:
            {{- if ne .name "api" }}
            # Leases are held in the pod's name, so that a restarted container goes on at once.
            - name: FEDPIPE_INSTANCE
              valueFrom:
                fieldRef: { fieldPath: metadata.name }
            {{- end }}
            {{- include "fedpipe.env.nats" (dict "root" $root "role" .name) | nindent 12 }}
            {{- with .env }}
            {{- . | nindent 12 }}
            {{- end }}
            {{- include "fedpipe.env.trust" $root | nindent 12 }}
            {{- include "fedpipe.env.otlp" $root | nindent 12 }}
          ports:
            {{- with .ports }}
            {{- . | nindent 12 }}
            {{- end }}
            - { name: health, containerPort: 9090 }
          {{- include "fedpipe.probes" . | nindent 10 }}
          {{- with .lifecycle }}
          {{- . | nindent 10 }}
          {{- end }}
          resources:
            {{- toYaml .values.resources | nindent 12 }}
          volumeMounts:
            - { name: config, mountPath: /etc/fedpipe/config, readOnly: true }
            {{- include "fedpipe.mounts" $root | nindent 12 }}
            {{- with .mounts }}
            {{- . | nindent 12 }}
            {{- end }}
      volumes:
        - name: config
          configMap:
            name: {{ $name }}
        {{- include "fedpipe.volumes" (dict "root" $root "role" .name) | nindent 8 }}
        {{- with .volumes }}
        {{- . | nindent 8 }}
        {{- end }}
{{- if $root.Values.podDisruptionBudget.enabled }}
---
{{ include "fedpipe.budget" . }}
{{- end }}
{{- end -}}
