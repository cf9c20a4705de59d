{{/* What controller and speaker both read: the configuration, in the release's namespace only. */}}
{{- define "patina.configReaderRules" -}}
- apiGroups: [metallb.io]
  resources: [ipaddresspools, l2advertisements, bgpadvertisements, bgppeers, bfdprofiles, communities]
  verbs: [list, watch]
- apiGroups: [patina.io]
  resources: [addressreservations]
  verbs: [list, watch]
# The legacy ConfigMap; list and watch name it in their field selector.
- apiGroups: [""]
  resources: [configmaps]
  resourceNames: [config]
  verbs: [list, watch]
# Passwords that a BGPPeer refers to.
- apiGroups: [""]
  resources: [secrets]
  verbs: [list, watch]
{{- end }}
