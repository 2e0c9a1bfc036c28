{{- define "monoceros.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "monoceros.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 63 | trimSuffix "-" }}
{{- else if contains (include "monoceros.name" .) .Release.Name }}
{{- .Release.Name | trunc 63 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "monoceros.name" .) | trunc 63 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "monoceros.selector" -}}
app.kubernetes.io/name: {{ include "monoceros.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: web
{{- end }}

{{- define "monoceros.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
{{- end }}

{{- define "monoceros.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}
{{- .Values.serviceAccount.name | default (include "monoceros.fullname" .) }}
{{- else }}
{{- .Values.serviceAccount.name | default "default" }}
{{- end }}
{{- end }}

{{- define "monoceros.image" -}}
{{- $repository := required "image.repository is the image of your application" .Values.image.repository }}
{{- if .Values.image.digest }}
{{- printf "%s@%s" $repository .Values.image.digest }}
{{- else }}
{{- printf "%s:%s" $repository (required "image.tag or image.digest says which image" .Values.image.tag) }}
{{- end }}
{{- end }}

{{/* The config file: one line a setting, sorted, so that the same values give the same checksum. */}}
{{- define "monoceros.settings" -}}
bind = {{ printf ":%v" .Values.containerPort | toJson }}
health_path = {{ .Values.probes.path | toJson }}
{{- range $name, $value := .Values.settings }}
{{- if not (kindIs "invalid" $value) }}
{{ $name }} = {{ include "monoceros.toml" $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* A value in TOML, on one line. Text, numbers and booleans are as in JSON; a map is an inline table. */}}
{{- define "monoceros.toml" -}}
{{- $parts := list }}
{{- if kindIs "map" . }}
{{- range $name, $value := . }}
{{- $parts = append $parts (printf "%s = %s" ($name | toJson) (include "monoceros.toml" $value)) }}
{{- end }}
{{- printf "{%s}" (join ", " $parts) }}
{{- else if kindIs "slice" . }}
{{- range . }}
{{- $parts = append $parts (include "monoceros.toml" .) }}
{{- end }}
{{- printf "[%s]" (join ", " $parts) }}
{{- else }}
{{- . | toJson }}
{{- end }}
{{- end }}

{{- define "monoceros.stop" -}}
{{- add (default 0 .Values.settings.shutdown_delay | int) (default 30 .Values.settings.graceful_timeout | int) }}
{{- end }}

{{/* The seconds from TERM to KILL. */}}
{{- define "monoceros.grace" -}}
{{- $stop := include "monoceros.stop" . | int }}
{{- $grace := .Values.terminationGracePeriodSeconds | int }}
{{- if and $grace (le $grace (add $stop 5 | int)) }}
{{- fail (printf "terminationGracePeriodSeconds is %d, and must be more than shutdown_delay + graceful_timeout + 5 = %d" $grace (add $stop 5 | int)) }}
{{- end }}
{{- $grace | default (add $stop 10) }}
{{- end }}

{{- define "monoceros.checks" -}}
{{- $ready := mul (.Values.probes.readiness.periodSeconds | int) (.Values.probes.readiness.failureThreshold | int) }}
{{- if le $ready (default 0 .Values.settings.shutdown_delay | int64) }}
{{- fail (printf "probes.readiness: periodSeconds x failureThreshold is %d, and must be more than settings.shutdown_delay: the pod would count as gone while it still serves" $ready) }}
{{- end }}
{{- end }}
