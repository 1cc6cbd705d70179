{{/* The rights on the objects. They do not go with a namespace: its keys have to be revoked while it goes.
     tests/cluster/chart/rbac.rs shows that of all rights none is missing and none too much. */}}
{{- define "boltz-operator.objectRules" -}}
- apiGroups: [boltz.bio]
  resources: [boltzapikeys]
  verbs: [get, list, watch, patch]
- apiGroups: [boltz.bio]
  resources: [boltzapikeys/status]
  verbs: [patch]
{{- end -}}

{{/* The rights for BoltzAccounts. */}}
{{- define "boltz-operator.accountRules" -}}
- apiGroups: [boltz.bio]
  resources: [boltzaccounts]
  verbs: [list, watch, patch]
- apiGroups: [boltz.bio]
  resources: [boltzaccounts/status]
  verbs: [patch]
# Their labels say who may use an account.
- apiGroups: [""]
  resources: [namespaces]
  verbs: [list, watch]
{{- end -}}

{{/* The other rights in the namespaces that are watched. */}}
{{- define "boltz-operator.namespaceRules" -}}
# Its writes are guarded by UID and resourceVersion.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [events.k8s.io]
  resources: [events]
  # An event that repeats is counted.
  verbs: [create, patch]
{{- if .Values.rolloutRestart.enabled }}
# For spec.rolloutRestartTargets: to restart them, and to see how far their rollouts are.
- apiGroups: [apps]
  resources: [deployments, statefulsets, daemonsets]
  verbs: [get, patch]
{{- end }}
{{- end -}}

{{/* Takes (list . roleKind roleName): roleRef and subjects of a binding. */}}
{{- define "boltz-operator.binds" -}}
{{- $root := index . 0 -}}
roleRef:
  apiGroup: rbac.authorization.k8s.io
  kind: {{ index . 1 }}
  name: {{ index . 2 }}
subjects:
  - kind: ServiceAccount
    name: {{ include "boltz-operator.serviceAccountName" $root | toYaml }}
    namespace: {{ include "boltz-operator.namespace" $root | toYaml }}
{{- end -}}
