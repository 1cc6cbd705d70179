{{/* Takes root, name, expression, message (both CEL) and perhaps variables: a policy and its binding. */}}
{{- define "boltz-operator.policy" -}}
{{- $root := .root -}}
{{- $name := printf "%s-%s" (include "boltz-operator.fullname" $root) .name }}
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicy
metadata:
  name: {{ $name }}
  labels:
    {{- include "boltz-operator.labels" (list $root "operator") | nindent 4 }}
spec:
  failurePolicy: Fail
  matchConstraints:
    resourceRules:
      - apiGroups: [boltz.bio]
        apiVersions: ["*"]
        operations: [CREATE, UPDATE]
        resources: [boltzapikeys]
  matchConditions:
    # Or a finalizer could not be dropped, and an object that broke a later rule could not even be deleted.
    - name: is-not-being-deleted
      expression: "!has(object.metadata.deletionTimestamp)"
    - name: changes-the-spec
      expression: "request.operation == 'CREATE' || object.spec != oldObject.spec"
  {{- with .variables }}
  variables:
    {{- range $variable, $expression := . }}
    - name: {{ $variable }}
      expression: {{ $expression | quote }}
    {{- end }}
  {{- end }}
  validations:
    - expression: {{ .expression | quote }}
      messageExpression: {{ .message | quote }}
---
apiVersion: admissionregistration.k8s.io/v1
kind: ValidatingAdmissionPolicyBinding
metadata:
  name: {{ $name }}
  labels:
    {{- include "boltz-operator.labels" (list $root "operator") | nindent 4 }}
spec:
  policyName: {{ $name }}
  validationActions: {{ $root.Values.policies.validationActions | toJson }}
{{- end -}}
