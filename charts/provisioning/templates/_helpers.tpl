{{/* Labels that select the operator's Pods. */}}
{{- define "provisioning.selector" -}}
app.kubernetes.io/name: provisioning
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end }}

{{/* Recommended labels of everything in the chart. */}}
{{- define "provisioning.labels" -}}
app.kubernetes.io/name: provisioning
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: provisioning
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name (.Chart.Version | replace "+" "_") }}
{{- end }}

{{/* Name that the API server knows the operator by. */}}
{{- define "provisioning.operator.user" -}}
system:serviceaccount:{{ .Release.Namespace }}:provisioning-operator
{{- end }}

{{/* Security context of a container, as the restricted Pod Security Standard asks for it. */}}
{{- define "provisioning.container.security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Security context of a Pod. */}}
{{- define "provisioning.pod.security" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
seccompProfile:
  type: RuntimeDefault
{{- end }}
