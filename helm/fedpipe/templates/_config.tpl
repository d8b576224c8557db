{{/* What the services read: parts of their TOML files, and the variables that carry secrets. */}}

{{- define "fedpipe.nats.url" -}}
{{- if .Values.nats.enabled -}}
{{- $scheme := ternary "tls" "nats" (not (empty .Values.nats.tls.existingSecret)) -}}
{{- printf "%s://%s:4222" $scheme (include "fedpipe.component" (dict "root" . "name" "nats")) -}}
{{- else -}}
{{- required "nats.url: with nats.enabled=false it says where NATS is" .Values.nats.url -}}
{{- end -}}
{{- end -}}

{{/* The sections that every service has. */}}
{{- define "fedpipe.config" -}}
[nats]
url = {{ include "fedpipe.nats.url" . | quote }}

[health]
listen = {{ printf "%s:9090" .Values.listenAddress | quote }}

[telemetry]
log = {{ .Values.telemetry.log | quote }}
format = {{ .Values.telemetry.format | quote }}

[liveness]
idle_ms = {{ int64 .Values.liveness.idleMs }}
{{- end -}}

{{/* Storage as api and aggregator reach it. */}}
{{- define "fedpipe.config.storage" -}}
[storage]
url = {{ .Values.storage.url | quote }}
{{- with .Values.storage.endpoint }}
endpoint = {{ . | quote }}
{{- end }}
{{- with .Values.storage.region }}
region = {{ . | quote }}
{{- end }}
allow_http = {{ .Values.storage.allowHttp }}
{{- end -}}

{{/* Who this process is towards NATS. (dict "root" $ "role" "api") */}}
{{- define "fedpipe.env.nats" -}}
{{- with .root.Values.nats.existingSecret }}
{{- if eq $.root.Values.nats.credentials "file" }}
- name: FEDPIPE_NATS__CREDENTIALS_FILE
  value: {{ printf "/etc/fedpipe/nats/%s.creds" $.role }}
{{- else if eq $.root.Values.nats.credentials "nkey" }}
- name: FEDPIPE_NATS__SEED_FILE
  value: {{ printf "/etc/fedpipe/nats/%s.nk" $.role }}
{{- else }}
- name: FEDPIPE_NATS__USER
  value: {{ $.role }}
- name: FEDPIPE_NATS__PASSWORD
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: {{ $.role }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "fedpipe.env.storage" -}}
- name: FEDPIPE_STORAGE__ACCESS_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.storage.existingSecret }}
      key: access_key
- name: FEDPIPE_STORAGE__SECRET_KEY
  valueFrom:
    secretKeyRef:
      name: {{ .Values.storage.existingSecret }}
      key: secret_key
{{- end -}}

{{- define "fedpipe.env.token" -}}
- name: FEDPIPE_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ .Values.api.existingSecret }}
      key: token
{{- end -}}

{{/* Where the Hub is, and as whom. */}}
{{- define "fedpipe.env.hub" -}}
{{- with .Values.hub.endpoint }}
- name: HF_ENDPOINT
  value: {{ . | quote }}
{{- end }}
{{- with .Values.hub.existingSecret }}
- name: HF_TOKEN
  valueFrom:
    secretKeyRef:
      name: {{ . }}
      key: token
{{- end }}
{{- end -}}

{{- define "fedpipe.env.trust" -}}
{{- if or .Values.caBundle.configMap .Values.caBundle.secret }}
- name: SSL_CERT_FILE
  value: {{ printf "/etc/fedpipe/authorities/%s" .Values.caBundle.key }}
{{- end }}
{{- end -}}

{{/* How the file ends that a role proves itself with; empty with passwords. */}}
{{- define "fedpipe.nats.ending" -}}
{{- get (dict "file" ".creds" "nkey" ".nk") .Values.nats.credentials -}}
{{- end -}}

{{/* Volumes for what a role proves itself with and for whom it trusts. */}}
{{- define "fedpipe.volumes" -}}
{{- $ending := include "fedpipe.nats.ending" .root -}}
{{- if and .root.Values.nats.existingSecret $ending }}
- name: nats
  secret:
    secretName: {{ .root.Values.nats.existingSecret }}
    items:
      - key: {{ printf "%s%s" .role $ending }}
        path: {{ printf "%s%s" .role $ending }}
{{- end }}
{{- include "fedpipe.volumes.authorities" .root }}
{{- include "fedpipe.volumes.collector" .root }}
{{- end -}}

{{- define "fedpipe.volumes.authorities" -}}
{{- with .Values.caBundle }}
{{- if .configMap }}
- name: authorities
  configMap:
    name: {{ .configMap }}
{{- else if .secret }}
- name: authorities
  secret:
    secretName: {{ .secret }}
    items:
      - key: {{ .key }}
        path: {{ .key }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Files for TLS to the collector, and nothing else of their Secret. */}}
{{- define "fedpipe.volumes.collector" -}}
{{- with .Values.telemetry.otlp.tls }}
{{- if .existingSecret }}
- name: collector
  secret:
    secretName: {{ .existingSecret }}
    items:
      {{- range compact (list .ca .certificate .key) }}
      - key: {{ . }}
        path: {{ . }}
      {{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "fedpipe.mounts.collector" -}}
{{- if .Values.telemetry.otlp.tls.existingSecret }}
- name: collector
  mountPath: /etc/fedpipe/collector
  readOnly: true
{{- end }}
{{- end -}}

{{- define "fedpipe.mounts" -}}
{{- if and .Values.nats.existingSecret (include "fedpipe.nats.ending" .) }}
- name: nats
  mountPath: /etc/fedpipe/nats
  readOnly: true
{{- end }}
{{- if or .Values.caBundle.configMap .Values.caBundle.secret }}
- name: authorities
  mountPath: /etc/fedpipe/authorities
  readOnly: true
{{- end }}
{{- include "fedpipe.mounts.collector" . }}
{{- end -}}
