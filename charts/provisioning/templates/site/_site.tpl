{{/* Images that the site offers, as a JSON list of {os, version, id}. */}}
{{- define "provisioning.site.images" -}}
{{- prepend .Values.local.images (dict "os" "debian" "version" "12" "id" .Values.local.image) | toJson -}}
{{- end }}

{{/* Their container images, as a JSON list, which is a CEL list too. */}}
{{- define "provisioning.site.image.ids" -}}
{{- $ids := list -}}
{{- range include "provisioning.site.images" . | fromJsonArray }}{{ $ids = append $ids .id }}{{ end -}}
{{- $ids | toJson -}}
{{- end }}

{{/* Match only the executors of the Local provider, whatever their workspace. */}}
{{- define "provisioning.site.executor" -}}
request.userInfo.username.matches('^system:serviceaccount:[a-z0-9-]+:provisioning-local-provider$')
{{- end }}

{{/* Constraints that every policy of the site shares; the argument is the list of rules. */}}
{{- define "provisioning.site.namespaces" -}}
namespaceSelector:
  matchLabels:
    provisioning.dev/site: "true"
{{- end }}

{{/* Whose it is: labels that a pod and a Secret of the site have in common, checked against the requester. Uses
     variables.labels, variables.workspace, variables.uid, variables.incarnation. */}}
{{- define "provisioning.site.labels" -}}
variables.labels.all(k, k in ['app.kubernetes.io/managed-by', 'provisioning.dev/owner-uid', 'provisioning.dev/owner-kind',
'provisioning.dev/owner-name', 'provisioning.dev/owner-namespace', 'provisioning.dev/installation',
'provisioning.dev/token', 'provisioning.dev/role', 'provisioning.dev/zone', 'provisioning.dev/incarnation'])
&& variables.labels[?'app.kubernetes.io/managed-by'].orValue('') == 'provisioning'
&& variables.labels[?'provisioning.dev/owner-namespace'].orValue('') == variables.workspace
&& variables.uid.matches('^[0-9a-f-]{36}$')
&& variables.incarnation.matches('^[0-9]{1,18}$')
&& variables.labels[?'provisioning.dev/token'].orValue('') != ''
&& !has(object.metadata.ownerReferences) && !has(object.metadata.finalizers)
{{- end }}

{{/* The same as variables. */}}
{{- define "provisioning.site.variables" -}}
- name: workspace
  expression: request.userInfo.username.split(':')[2]
- name: labels
  expression: object.metadata.?labels.orValue({})
- name: uid
  expression: variables.labels[?'provisioning.dev/owner-uid'].orValue('')
- name: incarnation
  expression: variables.labels[?'provisioning.dev/incarnation'].orValue('')
{{- end }}
