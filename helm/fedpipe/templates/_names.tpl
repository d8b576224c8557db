{{/* Names and labels. A pod's name is a lease holder's name, so it stays within 63 letters. */}}

{{- define "fedpipe.fullname" -}}
{{- .Values.fullnameOverride | default .Release.Name | trunc 30 | trimSuffix "-" -}}
{{- end -}}

{{/* (dict "root" $ "name" "api") */}}
{{- define "fedpipe.component" -}}
{{- printf "%s-%s" (include "fedpipe.fullname" .root) .name -}}
{{- end -}}

{{/* A StatefulSet's name goes into a label together with a hash: 52 letters. (dict "root" $ "site" "mail-1") */}}
{{- define "fedpipe.worker" -}}
{{- $name := printf "%s-worker-%s" (include "fedpipe.fullname" .root) .site -}}
{{- if gt (len $name) 52 -}}
{{- printf "%s-%s" ($name | trunc 43 | trimSuffix "-") (sha256sum .site | trunc 8) -}}
{{- else -}}
{{- $name -}}
{{- end -}}
{{- end -}}

{{- define "fedpipe.selector" -}}
app.kubernetes.io/name: fedpipe
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- if .site }}
fedpipe/site: {{ .site | quote }}
{{- end }}
{{- end -}}

{{- define "fedpipe.labels" -}}
{{ include "fedpipe.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/part-of: fedpipe
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end -}}

{{/* (dict "image" .Values.image "tag" .Chart.AppVersion) */}}
{{- define "fedpipe.image" -}}
{{- if .image.digest -}}
{{- printf "%s@%s" .image.repository .image.digest | quote -}}
{{- else -}}
{{- printf "%s:%s" .image.repository (.image.tag | default .tag | toString) | quote -}}
{{- end -}}
{{- end -}}
