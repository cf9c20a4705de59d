{{- define "patina.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{/* The release's name when it already says patina, else <release>-patina. 52 leaves room for "-controller". */}}
{{- define "patina.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "patina.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "patina.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/name: {{ include "patina.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{/* A Deployment's selector can never change: only what never changes is in here. */}}
{{- define "patina.selectorLabels" -}}
app.kubernetes.io/name: {{ include "patina.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "patina.controller.serviceAccountName" -}}
{{- if .Values.controller.serviceAccount.create }}
{{- default (printf "%s-controller" (include "patina.fullname" .)) .Values.controller.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.controller.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "patina.speaker.serviceAccountName" -}}
{{- if .Values.speaker.serviceAccount.create }}
{{- default (printf "%s-speaker" (include "patina.fullname" .)) .Values.speaker.serviceAccount.name }}
{{- else }}
{{- default "default" .Values.speaker.serviceAccount.name }}
{{- end }}
{{- end }}

{{/* The Secret with the key of the speakers' membership. */}}
{{- define "patina.memberlistSecretName" -}}
{{- default (printf "%s-memberlist" (include "patina.fullname" .)) .Values.speaker.secretName }}
{{- end }}

{{/* image: and imagePullPolicy: of a container; (list $ .Values.controller.image). */}}
{{- define "patina.image" -}}
{{- $root := index . 0 }}
{{- $own := index . 1 }}
{{- $shared := $root.Values.image }}
image: {{ printf "%s:%s" (default $shared.repository $own.repository) (default (default $root.Chart.AppVersion $shared.tag) $own.tag) | quote }}
{{- with default $shared.pullPolicy $own.pullPolicy }}
imagePullPolicy: {{ . }}
{{- end }}
{{- end }}

{{/* An HTTP probe; (list .Values.controller.livenessProbe "/healthz" host), host may be empty. */}}
{{- define "patina.probe" -}}
{{- $probe := index . 0 }}
{{- $host := index . 2 }}
httpGet:
  path: {{ index . 1 }}
  port: health
  {{- with $host }}
  host: {{ . }}
  {{- end }}
initialDelaySeconds: {{ $probe.initialDelaySeconds }}
periodSeconds: {{ $probe.periodSeconds }}
timeoutSeconds: {{ $probe.timeoutSeconds }}
failureThreshold: {{ $probe.failureThreshold }}
successThreshold: {{ $probe.successThreshold }}
{{- end }}

{{/* Annotations of a Pod template: the user's, and where to scrape. */}}
{{- define "patina.podAnnotations" -}}
{{- $root := index . 0 }}
{{- $own := index . 1 }}
{{- with $own }}
{{- toYaml . }}
{{- end }}
{{- if $root.Values.prometheus.scrapeAnnotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ $root.Values.prometheus.metricsPort | quote }}
{{- end }}
{{- end }}
