{{/* What the schema cannot say in words that help. The operator refuses the same, but only in its pod. */}}
{{- define "boltz-operator.validate" -}}
{{- if and .Values.adminKey.value .Values.adminKey.existingSecret -}}
{{- fail "adminKey: give either existingSecret or value, not both" -}}
{{- end -}}
{{- if and .Values.boltz.ca.configMap .Values.boltz.ca.secret -}}
{{- fail "boltz.ca: give either configMap or secret, not both" -}}
{{- end -}}
{{- $url := .Values.boltz.baseURL -}}
{{- $isLoopback := regexMatch "^http://(localhost|127[.][0-9.]+|\\[::1\\])(:|/|$)" $url -}}
{{- if and (hasPrefix "http://" $url) (not $isLoopback) (not .Values.boltz.allowInsecureHTTP) -}}
{{- fail (printf "boltz.baseURL: %s would send the admin key and every new key readable over the network; give an https:// URL, or set boltz.allowInsecureHTTP=true for a trial" $url) -}}
{{- end -}}
{{- if and .Values.watchNamespaces (not .Values.clusterName) -}}
{{- fail "clusterName: must be given with watchNamespaces, another one for each installation; for example clusterName=prod-team-a" -}}
{{- end -}}
{{- if eq .Values.config.orphanPolicy "revoke" -}}
{{- if or .Values.watchNamespaces .Values.config.labelSelector -}}
{{- fail "config.orphanPolicy: revoke cannot go with watchNamespaces or config.labelSelector, because the keys of other installations would look orphaned; set it to report" -}}
{{- end -}}
{{- end -}}
{{- if and (not .Values.config.leaderElect) (gt (int .Values.replicaCount) 1) -}}
{{- fail "config.leaderElect: false is for a single replica; set replicaCount=1 or config.leaderElect=true" -}}
{{- end -}}
{{- if and .Values.config.labelSelector .Values.tests.enabled (not .Values.tests.labels) -}}
{{- fail "tests.labels: must be given with config.labelSelector, so that the operator looks at the key of `helm test`; or set tests.enabled=false" -}}
{{- end -}}
{{- $isLoopbackOnly := "^(127[.]|localhost:|\\[::1\\])" -}}
{{- range $name, $address := dict "config.listen" .Values.config.listen "emulator.listen" .Values.emulator.listen -}}
{{- if and (regexMatch $isLoopbackOnly $address) (not $.Values.hostNetwork) -}}
{{- fail (printf "%s: %s is the pod's own loopback, where no probe reaches it; give 0.0.0.0:<port>, or set hostNetwork=true" $name $address) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.hostNetwork .Values.networkPolicy.enabled -}}
{{- fail "networkPolicy.enabled: a NetworkPolicy does not apply to pods with hostNetwork; switch one of them off" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled .Values.metrics.podMonitor.enabled -}}
{{- fail "metrics: switch on either serviceMonitor or podMonitor; with both every metric would be counted twice" -}}
{{- end -}}
{{- if and .Values.metrics.serviceMonitor.enabled (not .Values.metrics.service.enabled) -}}
{{- fail "metrics.serviceMonitor.enabled: needs metrics.service.enabled=true; or use metrics.podMonitor" -}}
{{- end -}}
{{- end -}}
