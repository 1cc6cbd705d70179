{{/* Checks that the schema cannot express. The operator makes the same checks, but only in its pod. */}}
{{- define "boltz-operator.validate" -}}
{{- if and .Values.adminKey.value .Values.adminKey.existingSecret -}}
{{- fail "adminKey: set only one of existingSecret and value" -}}
{{- end -}}
{{- if not (or .Values.adminKey.enabled .Values.accounts.enabled) -}}
{{- fail "adminKey.enabled: false is for installations with accounts.enabled=true" -}}
{{- end -}}
{{- if and .Values.accounts.create (not .Values.accounts.enabled) -}}
{{- fail "accounts.create: requires accounts.enabled=true" -}}
{{- end -}}
{{- if and .Values.adminKey.file (or .Values.adminKey.value .Values.adminKey.existingSecret) -}}
{{- fail "adminKey: set only one of file, existingSecret and value" -}}
{{- end -}}
{{- if and .Values.boltz.ca.configMap .Values.boltz.ca.secret -}}
{{- fail "boltz.ca: set only one of configMap and secret" -}}
{{- end -}}
{{- $url := .Values.boltz.baseURL -}}
{{- $isLoopback := regexMatch "^http://(localhost|127[.][0-9.]+|\\[::1\\])(:|/|$)" $url -}}
{{- if and (hasPrefix "http://" $url) (not $isLoopback) (not .Values.boltz.allowInsecureHTTP) -}}
{{- fail (printf "boltz.baseURL: %s would send the admin key and all new keys unencrypted; use an https:// URL, or set boltz.allowInsecureHTTP=true for a trial" $url) -}}
{{- end -}}
{{- if and .Values.watchNamespaces (not .Values.clusterName) -}}
{{- fail "clusterName: required with watchNamespaces, for example clusterName=prod; several installations in one cluster may share a name" -}}
{{- end -}}
{{- if eq .Values.config.orphanPolicy "revoke" -}}
{{- if or .Values.watchNamespaces .Values.config.labelSelector -}}
{{- fail "config.orphanPolicy: revoke cannot be combined with watchNamespaces or config.labelSelector, because the keys of other installations would look orphaned; set it to report" -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.config.leaderElect) (gt (int .Values.replicaCount) 1) -}}
{{- fail "config.leaderElect: false is for a single replica; set replicaCount=1 or config.leaderElect=true" -}}
{{- end -}}
{{- if and .Values.config.labelSelector .Values.tests.enabled (not .Values.tests.labels) -}}
{{- fail "tests.labels: required with config.labelSelector, so that the operator watches the key of `helm test`; or set tests.enabled=false" -}}
{{- end -}}
{{- $isLoopbackOnly := "^(127[.]|localhost:|\\[::1\\])" -}}
{{- range $name, $address := dict "config.listen" .Values.config.listen "emulator.listen" .Values.emulator.listen -}}
{{- if and (regexMatch $isLoopbackOnly $address) (not $.Values.hostNetwork) -}}
{{- fail (printf "%s: probes cannot reach %s, because it is the pod's loopback address; use :<port>, or set hostNetwork=true" $name $address) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled -}}
{{- fail "networkPolicy.enabled: a NetworkPolicy does not apply to pods with hostNetwork; set one of them to false" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics: enable only one of serviceMonitor and podMonitor; with both, all metrics are collected twice" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled: requires metrics.service.enabled=true; or use metrics.podMonitor" -}}
{{- end -}}
{{- end -}}
