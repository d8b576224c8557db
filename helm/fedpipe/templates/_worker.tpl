{{/* What workers have in common, whoever starts them. */}}

{{/* Requests are limits: what a worker reads from its cgroup is what it can count on. (dict "root" $ "resources" site) */}}
{{- define "fedpipe.worker.container" -}}
image: {{ include "fedpipe.image" (dict "image" .root.Values.image "tag" .root.Chart.AppVersion) }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
{{ include "fedpipe.container" . }}
ports:
  - { name: health, containerPort: 9090 }
{{ include "fedpipe.probes" . }}
resources:
  {{- $amounts := dict "cpu" (.resources.cpu | default "2" | toString) "memory" (.resources.memory | default "4Gi") }}
  {{- toYaml (dict "requests" $amounts "limits" $amounts) | nindent 2 }}
{{- end -}}

{{/* A site.toml, secrets left out. (dict "root" $ "site" site) */}}
{{- define "fedpipe.site" -}}
{{- $settings := .site.settings | default dict -}}
name = {{ .site.name | quote }}
state_dir = "/var/lib/fedpipe"
{{- range $key, $value := omit $settings "models" "datasets" "policy" "storage" "hub" }}
{{- if kindIs "string" $value }}
{{ $key }} = {{ $value | quote }}
{{- else }}
{{ $key }} = {{ $value }}
{{- end }}
{{- end }}

{{ include "fedpipe.config" .root }}
{{- with $settings.storage | default (ternary (dict "allow_http" true) dict .root.Values.storage.allowHttp) }}

{{ toToml (dict "storage" .) }}
{{- end }}
{{- with pick $settings "hub" "models" "datasets" "policy" }}

{{ toToml . }}
{{- end }}
{{- end -}}

{{/* Models of the Hub that a site lets itself fetch; empty: none. (site) */}}
{{- define "fedpipe.site.hub" -}}
{{- dig "policy" "allow_hub" list (.settings | default dict) | join " " -}}
{{- end -}}

{{/* Where a site's Hub is, if it is not the release's. (site) */}}
{{- define "fedpipe.site.hub.endpoint" -}}
{{- dig "hub" "endpoint" "" (.settings | default dict) -}}
{{- end -}}

{{- define "fedpipe.data.mounts" -}}
{{- range . }}
- { name: {{ .name }}, mountPath: {{ .mountPath | quote }}, readOnly: true }
{{- end }}
{{- end -}}

{{- define "fedpipe.data.volumes" -}}
{{- range . }}
- name: {{ .name }}
  {{- toYaml (omit . "name" "mountPath") | nindent 2 }}
{{- end }}
{{- end -}}
