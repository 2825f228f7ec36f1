{{/* Names and labels that several templates share. */}}

{{- define "cloacina.fullname" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "cloacina.operator" -}}
{{ include "cloacina.fullname" . }}-operator
{{- end }}

{{- define "cloacina.selector" -}}
app.kubernetes.io/name: cloacina
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{- define "cloacina.labels" -}}
app.kubernetes.io/name: cloacina
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: cloacina
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "cloacina.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/*
The namespaces in which packages live, as a JSON list. Never the operator's own by default: a pod of a package there could
use the operator's service account.
*/}}
{{- define "cloacina.namespaces" -}}
{{- if not (or .Values.packageNamespaces .Values.clusterWide) }}
{{- fail "packageNamespaces is empty: name the namespaces in which packages may live, such as {cloacina-packages}, or set clusterWide" }}
{{- end }}
{{- .Values.packageNamespaces | toJson }}
{{- end }}

{{- define "cloacina.pullSecretNames" -}}
{{- range $index, $secret := .Values.image.pullSecrets }}{{ if $index }},{{ end }}{{ $secret.name }}{{ end }}
{{- end }}
