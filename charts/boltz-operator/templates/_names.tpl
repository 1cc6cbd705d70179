{{- define "boltz-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name) -}}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "boltz-operator.namespace" -}}
{{ default .Release.Namespace .Values.namespaceOverride }}
{{- end -}}

{{- define "boltz-operator.emulatorName" -}}
{{ include "boltz-operator.fullname" . }}-emulator
{{- end -}}

{{- define "boltz-operator.serviceAccountName" -}}
{{- $own := .Values.serviceAccount.create | ternary (include "boltz-operator.fullname" .) "default" -}}
{{- default $own .Values.serviceAccount.name -}}
{{- end -}}

{{/* The Secret with the admin key. */}}
{{- define "boltz-operator.adminKeySecret" -}}
{{- if .Values.adminKey.value -}}
{{ include "boltz-operator.fullname" . }}-admin-key
{{- else if .Values.adminKey.existingSecret -}}
{{ .Values.adminKey.existingSecret }}
{{- else if .Values.emulator.enabled -}}
{{ include "boltz-operator.emulatorName" . }}
{{- else -}}
boltz-admin-key
{{- end -}}
{{- end -}}

{{- define "boltz-operator.leaseName" -}}
{{ default (include "boltz-operator.fullname" .) .Values.config.leaseName }}
{{- end -}}

{{- define "boltz-operator.leaseNamespace" -}}
{{ default (include "boltz-operator.namespace" .) .Values.config.leaseNamespace }}
{{- end -}}

{{/* Takes (list . "operator"): the labels by which the pods of a component are found. */}}
{{- define "boltz-operator.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | toYaml }}
app.kubernetes.io/instance: {{ toYaml $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end -}}

{{/* Takes (list . "operator" labels): those of a component's pods, with labels of the user's that may be missing. */}}
{{- define "boltz-operator.podLabels" -}}
{{- $own := include "boltz-operator.selectorLabels" . | fromYaml -}}
{{- $common := (index . 0).Values.commonLabels -}}
{{- mergeOverwrite (dict) $common (slice . 2 | first | default dict) $own | toYaml -}}
{{- end -}}

{{/* The same of everything else that belongs to a component. */}}
{{- define "boltz-operator.labels" -}}
{{- $root := index . 0 -}}
{{- $own := dict
  "helm.sh/chart" (printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_")
  "app.kubernetes.io/version" $root.Chart.AppVersion
  "app.kubernetes.io/managed-by" $root.Release.Service -}}
{{- mergeOverwrite (include "boltz-operator.podLabels" . | fromYaml) $own | toYaml -}}
{{- end -}}

{{/* Takes (list . image). A registry takes the place of the one in the repository: by the rule of container runtimes, its
     first part is one if it has a dot or a colon, or is localhost. */}}
{{- define "boltz-operator.image" -}}
{{- $root := index . 0 -}}{{- $image := index . 1 -}}
{{- $repository := $image.repository -}}
{{- with default $image.registry $root.Values.global.imageRegistry -}}
{{- $repository = regexReplaceAll "^([^/]*[.:][^/]*|localhost)/" $repository "" | printf "%s/%s" (trimSuffix "/" .) -}}
{{- end -}}
{{- if $image.digest -}}
{{ $repository }}@{{ $image.digest }}
{{- else -}}
{{ $repository }}:{{ default $root.Chart.AppVersion $image.tag }}
{{- end -}}
{{- end -}}

{{/* What every pod has. */}}
{{- define "boltz-operator.everyPod" -}}
enableServiceLinks: false
{{- $secrets := list -}}
{{- range concat (.Values.global.imagePullSecrets | default list) .Values.imagePullSecrets -}}
{{- $secrets = append $secrets (kindIs "string" . | ternary (dict "name" .) .) -}}
{{- end -}}
{{- with uniq $secrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ toYaml . }}
{{- end }}
securityContext:
  {{- toYaml .Values.podSecurityContext | nindent 2 }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* Takes an address such as 0.0.0.0:8080 or :8080. */}}
{{- define "boltz-operator.port" -}}
{{ regexFind "[0-9]+$" . }}
{{- end -}}

{{/* Takes such an address: the host of a probe, if it is not the pod's own. */}}
{{- define "boltz-operator.probeHost" -}}
{{- $host := regexReplaceAll ":[0-9]+$" . "" -}}
{{- if not (has $host (list "" "0.0.0.0" "[::]")) -}}
{{ trimAll "[]" $host }}
{{- end -}}
{{- end -}}
