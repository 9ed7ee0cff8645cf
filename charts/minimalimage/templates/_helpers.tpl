{{- define "minimalimage.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "minimalimage.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "minimalimage.labels" -}}
{{ include "minimalimage.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
{{- end -}}

{{- define "minimalimage.serviceAccount" -}}
{{- default (include "minimalimage.fullname" .) .Values.serviceAccount.name -}}
{{- end -}}

{{- define "minimalimage.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ default .Chart.AppVersion .Values.image.tag }}
{{- end -}}
{{- end -}}

{{/* The subject of every binding. */}}
{{- define "minimalimage.subject" -}}
- kind: ServiceAccount
  name: {{ include "minimalimage.serviceAccount" . }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{/* Whether the operator reads a file of its settings. */}}
{{- define "minimalimage.hasFiles" -}}
{{- if or .Values.registries .Values.caCertificates }}true{{ end -}}
{{- end -}}
