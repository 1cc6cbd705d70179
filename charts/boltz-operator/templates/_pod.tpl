{{- define "boltz-operator.baseURL" -}}
{{- if .Values.boltz.baseURL -}}
{{ .Values.boltz.baseURL }}
{{- else if .Values.emulator.enabled -}}
http://{{ include "boltz-operator.emulatorName" . }}.{{ include "boltz-operator.namespace" . }}.svc:{{ include "boltz-operator.port" .Values.emulator.listen }}
{{- else -}}
https://api.boltz.bio
{{- end -}}
{{- end -}}

{{- define "boltz-operator.arguments" -}}
- --boltz-base-url={{ include "boltz-operator.baseURL" . }}
{{- if or .Values.boltz.allowInsecureHTTP (and .Values.emulator.enabled (not .Values.boltz.baseURL)) }}
- --allow-insecure-http
{{- end }}
{{- if or .Values.boltz.ca.configMap .Values.boltz.ca.secret }}
- --boltz-ca-file=/etc/boltz-operator/ca/{{ .Values.boltz.ca.key }}
{{- end }}
{{- if .Values.adminKey.enabled }}
- --admin-key-file={{ .Values.adminKey.file | default (printf "/etc/boltz-operator/admin-key/%s" .Values.adminKey.secretKey) }}
{{- end }}
{{- if .Values.accounts.enabled }}
- --boltz-accounts
{{- with .Values.accounts.allowedURLs }}
- --allowed-boltz-urls={{ join "," . }}
{{- end }}
{{- end }}
{{- with .Values.clusterName }}
- --cluster-name={{ . }}
{{- end }}
{{- with .Values.watchNamespaces }}
- --watch-namespaces={{ join "," . }}
{{- end }}
{{- with .Values.config }}
{{- with .formerClusterNames }}
- --former-cluster-names={{ join "," . }}
{{- end }}
- --marker-format={{ int64 .markerFormat }}
{{- with .labelSelector }}
- {{ printf "--label-selector=%s" . | quote }}
{{- end }}
- --request-timeout={{ .requestTimeout }}
- --inventory-interval={{ .inventoryInterval }}
- --settle-time={{ .settleTime }}
{{- with .acceptOrganization }}
- --accept-organization={{ . }}
{{- end }}
{{- if .retryAlteredNames }}
- --retry-altered-names
{{- end }}
- --max-mints-per-minute={{ int64 .maxMintsPerMinute }}
{{- with .maxMintsPerNamespace }}
- --max-mints-per-namespace={{ int64 . }}
{{- end }}
- --concurrency={{ int64 .concurrency }}
- --orphan-policy={{ .orphanPolicy }}
- --orphan-grace={{ .orphanGrace }}
- --leader-elect={{ .leaderElect }}
- --lease-name={{ include "boltz-operator.leaseName" $ }}
{{- with .leaseNamespace }}
- --lease-namespace={{ . }}
{{- end }}
- --metrics-per-object={{ .metricsPerObject }}
- --listen={{ .listen }}
- --log-format={{ .logFormat }}
{{- end }}
{{- with .Values.extraArgs }}
{{ toYaml . }}
{{- end }}
{{- end -}}
