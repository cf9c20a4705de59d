{{/*
Refusals that a schema cannot word: values of MetalLB's chart that have no meaning in this version, and combinations.
A value that asks for nothing (frrk8s.enabled: false) passes, so that most values files of MetalLB work unchanged.
*/}}
{{- define "patina.validate" -}}
{{- $v := .Values }}
{{- if dig "frrk8s" "enabled" false $v.AsMap }}
{{- fail "frrk8s.enabled: Patina has no frr-k8s back end, and this version does not speak BGP yet; remove frrk8s" }}
{{- end }}
{{- if dig "frrk8s" "external" false $v.AsMap }}
{{- fail "frrk8s.external: Patina does not write FRRConfigurations; remove frrk8s" }}
{{- end }}
{{- if dig "speaker" "frr" "enabled" false $v.AsMap }}
{{- fail "speaker.frr.enabled: Patina runs no FRR, and this version does not speak BGP yet; remove speaker.frr" }}
{{- end }}
{{- if hasKey $v.AsMap "frr-k8s" }}
{{- fail "frr-k8s: there is no such subchart in Patina; remove it" }}
{{- end }}
{{- range $name := list "podMonitor" "serviceMonitor" "prometheusRule" }}
{{- if dig "prometheus" $name "enabled" false $v.AsMap }}
{{- fail (printf "prometheus.%s.enabled: this version of the chart renders no %s; set prometheus.scrapeAnnotations, or write one for port %v" $name $name $v.prometheus.metricsPort) }}
{{- end }}
{{- end }}
{{- if dig "networkpolicies" "enabled" false $v.AsMap }}
{{- fail "networkpolicies.enabled: this version of the chart renders no NetworkPolicy; remove networkpolicies" }}
{{- end }}
{{- range $port := list $v.prometheus.metricsPort $v.controller.livenessProbe.port }}
{{- if and (eq (int $port) 9443) (ne $v.controller.webhookMode "disabled") }}
{{- fail "9443 is the webhook's port; choose another for prometheus.metricsPort and controller.livenessProbe.port, or set controller.webhookMode: disabled" }}
{{- end }}
{{- end }}
{{- range $room := list "controller" "speaker" }}
{{- $values := get $v.AsMap $room }}
{{- if contains "metallb" $values.image.repository }}
{{- fail (printf "%s.image.repository: %s is MetalLB's image; name an image of Patina, or remove the value" $room $values.image.repository) }}
{{- end }}
{{- if ne (int $values.livenessProbe.port) (int $values.readinessProbe.port) }}
{{- fail (printf "%s.livenessProbe.port and %s.readinessProbe.port must be equal: one HTTP server answers both" $room $room) }}
{{- end }}
{{- if eq (int $values.livenessProbe.port) (int $v.prometheus.metricsPort) }}
{{- fail (printf "%s.livenessProbe.port: %v is prometheus.metricsPort already" $room $values.livenessProbe.port) }}
{{- end }}
{{- end }}
{{- if and $v.controller.enabled $v.speaker.enabled (eq (include "patina.controller.serviceAccountName" .) (include "patina.speaker.serviceAccountName" .)) }}
{{- fail "controller.serviceAccount and speaker.serviceAccount must differ: each has permissions that the other must not have" }}
{{- end }}
{{- end }}
