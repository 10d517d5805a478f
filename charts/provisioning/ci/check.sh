#!/usr/bin/env bash
# Checks the installed chart's roles and admission policies on a real API server: check.sh, with KUBECONFIG set to an
# administrator's. Needs the chart in provisioning-system (replicas 0 will do) and no running operator. Works in
# namespaces of its own and removes them. Prints what differs; exit code 1 if anything does.
set -uo pipefail

operator=system:serviceaccount:provisioning-system:provisioning-operator
site=${SITE:-provisioning-local}
space=chart-check-$$
executor=system:serviceaccount:$space:provisioning-executor
errors=$(mktemp)
failed=0 passed=0

report() { if [ "$1" = ok ]; then passed=$((passed + 1)); else failed=$((failed + 1)); echo "FAILED: $2" >&2; fi; }

# allowed RULE COMMAND…: the command succeeds.
allowed() { local rule=$1; shift; if "$@" >/dev/null 2>"$errors" </dev/null; then report ok; else report no "$rule: $(cat "$errors")"; fi; }

# refused RULE TEXT COMMAND…: the command fails and says TEXT.
refused() {
  local rule=$1 text=$2; shift 2
  if "$@" >/dev/null 2>"$errors" </dev/null; then report no "$rule: it was allowed"
  elif grep -qF -- "$text" "$errors"; then report ok
  else report no "$rule: refused with other words: $(cat "$errors")"; fi
}

# may WHO YES|NO NAMESPACE VERB RESOURCE…: what RBAC answers. NAMESPACE `-` means all.
may() {
  local who=$1 expected=$2 namespace=$3 verb=$4 resource; shift 4
  local scope=(-n "$namespace"); [ "$namespace" = - ] && scope=(-A)
  for resource in "$@"; do
    local subresource=(); case $resource in *:*) subresource=("--subresource=${resource#*:}");; esac
    local answer; answer=$(kubectl auth can-i "$verb" "${resource%%:*}" "${subresource[@]}" "${scope[@]}" --as "$who" 2>/dev/null)
    if [ "$answer" = "$expected" ]; then report ok; else report no "$who $verb $resource in $namespace: $answer, expected $expected"; fi
  done
}

# patch NAMESPACE JSON: a merge patch of a namespace as the operator. By hand, because kubectl reads before it patches, and the
# operator may not.
patch() {
  local answer; answer=$(curl --silent --show-error --max-time 20 --cacert "$folder/ca" --cert "$folder/cert" --key "$folder/key" \
    --request PATCH --header "Impersonate-User: $operator" --header 'Content-Type: application/merge-patch+json' \
    --data "$2" "$api/api/v1/namespaces/$1") || return 1
  jq -e '.kind == "Namespace"' >/dev/null <<<"$answer" || { jq -r .message <<<"$answer" >&2; return 1; }
}

apply() { kubectl create --dry-run=server -n "$space" --as "$operator" -f "$1"; }

# pod NAME JQ-FILTER: a Pod as the operator makes it, changed by the filter.
folder=$(mktemp -d)
kubectl config view --raw --minify --flatten -o json >"$folder/config"
api=$(jq -r '.clusters[0].cluster.server' "$folder/config")
jq -r '.clusters[0].cluster["certificate-authority-data"]' "$folder/config" | base64 -d >"$folder/ca"
(umask 077; jq -r '.users[0].user["client-certificate-data"]' "$folder/config" | base64 -d >"$folder/cert"
  jq -r '.users[0].user["client-key-data"]' "$folder/config" | base64 -d >"$folder/key")
pod() {
  jq -n '{apiVersion: "v1", kind: "Pod", metadata: {name: "run"}, spec: {
    serviceAccountName: "provisioning-executor", restartPolicy: "Never",
    securityContext: {runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532, seccompProfile: {type: "RuntimeDefault"}},
    containers: [{name: "runner", image: "localhost/runner:dev", volumeMounts: [{name: "ssh", mountPath: "/ssh"}],
      env: [{name: "UID", valueFrom: {fieldRef: {fieldPath: "metadata.uid"}}}],
      securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: ["ALL"]}}}],
    volumes: [{name: "ssh", secret: {secretName: "provisioning-ssh", defaultMode: 288}},
      {name: "bundle", configMap: {name: "bundle"}}, {name: "tmp", emptyDir: {}}]}} | '"$2" >"$folder/$1.json"
  echo "$folder/$1.json"
}

live() { jq -cn --argjson value "$1" '{metadata: {labels: {"provisioning.dev/live": $value}}}'; }

end() {
  kubectl delete workspace workspace -n "$space" --ignore-not-found >/dev/null 2>&1
  patch "$space" "$(live null)" >/dev/null 2>&1
  kubectl delete namespace "$space" "$space-role" --ignore-not-found --wait=false >/dev/null 2>&1
  rm -rf "$folder" "$errors"
}
trap end EXIT

kubectl create namespace "$space" >/dev/null || exit 1
kubectl create namespace "$space-role" >/dev/null || exit 1
kubectl create -f - >/dev/null <<Y || exit 1
{apiVersion: provisioning.dev/v1alpha1, kind: Workspace, metadata: {name: workspace, namespace: $space}, spec: {}}
Y

# --- the label and the namespace ------------------------------------------------------------------------------------
words='set and removed by the provisioning operator alone'
refused "an administrator cannot set the label" "$words" kubectl label namespace "$space" provisioning.dev/live=true
allowed "the operator sets the label" patch "$space" "$(live '"true"')"
refused "a live namespace is not deleted" "kubectl delete workspace workspace -n $space" kubectl delete namespace "$space" --wait=false
refused "not by a dry run either" "holds a live Workspace" kubectl delete namespace "$space" --dry-run=server
refused "an administrator cannot remove the label" "$words" kubectl label namespace "$space" provisioning.dev/live-
refused "nor change it" "$words" kubectl label namespace "$space" provisioning.dev/live=false --overwrite
for subresource in status finalize; do
  kubectl get namespace "$space" -o json | jq 'del(.metadata.labels["provisioning.dev/live"])' >"$folder/namespace.json"
  refused "nor through /$subresource" "$words" kubectl replace --raw "/api/v1/namespaces/$space/$subresource" -f "$folder/namespace.json"
done
cat >"$folder/new.json" <<Y
{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "$space-new", "labels": {"provisioning.dev/live": "true"}}}
Y
refused "a namespace is not created with it" "$words" kubectl create --dry-run=server -f "$folder/new.json"
allowed "other labels of a live namespace are free" kubectl label namespace "$space" team=heron
refused "the operator changes no other label" "nothing of a namespace but" \
  patch "$space" '{"metadata":{"labels":{"pod-security.kubernetes.io/enforce":"privileged"}}}'
refused "nor removes one" "nothing of a namespace but" \
  patch "$space" '{"metadata":{"labels":{"team":null}}}'
refused "nor writes an annotation" "nothing of a namespace but" \
  patch "$space" '{"metadata":{"annotations":{"a":"b"}}}'
allowed "a Workspace is deleted whenever one asks" kubectl delete workspace workspace -n "$space"
allowed "the operator removes the label" patch "$space" "$(live null)"
allowed "then the namespace can be deleted" kubectl delete namespace "$space" --dry-run=server

# --- what the operator creates ----------------------------------------------------------------------------------------
kubectl create serviceaccount provisioning-executor -n "$space" >/dev/null
words='mount ConfigMaps, empty folders'
allowed "a Pod as the operator makes it" apply "$(pod plain .)"
refused "another account" "run as provisioning-executor" apply "$(pod account '.spec.serviceAccountName = "default"')"
refused "the node's network" "share nothing with their node" apply "$(pod network '.spec.hostNetwork = true')"
refused "privileged" "gain no privileges" apply "$(pod privileged '.spec.containers[0].securityContext = {privileged: true}')"
refused "privileged, first" "gain no privileges" apply "$(pod first '.spec.initContainers = [.spec.containers[0] | .name = "first" | .securityContext = {privileged: true}]')"
refused "no word about privileges" "gain no privileges" apply "$(pod silent 'del(.spec.containers[0].securityContext)')"
refused "a folder of the node" "$words" apply "$(pod folder '.spec.volumes += [{name: "root", hostPath: {path: "/"}}]')"
refused "another Secret" "$words" apply "$(pod secret '.spec.volumes += [{name: "other", secret: {secretName: "other"}}]')"
allowed "a secret parameter" apply "$(pod parameter '.spec.volumes += [{name: "secret-1", secret: {secretName: "taskserv-nest"}}]')"
refused "another Secret, projected" "$words" apply "$(pod projected '.spec.volumes += [{name: "other", projected: {sources: [{secret: {name: "other"}}]}}]')"
refused "another Secret, in the environment" "$words" apply "$(pod variable '.spec.containers[0].env += [{name: "X", valueFrom: {secretKeyRef: {name: "other", key: "x"}}}]')"
refused "another Secret, as the environment" "$words" apply "$(pod environment '.spec.containers[0].envFrom = [{secretRef: {name: "other"}}]')"
jq '{apiVersion: "batch/v1", kind: "Job", metadata: {name: "run"}, spec: {managedBy: "provisioning.dev/operator", backoffLimit: 0, template: {spec: .spec}}}' "$folder/plain.json" >"$folder/job.json"
jq 'del(.spec.managedBy)' "$folder/job.json" >"$folder/stock.json"
allowed "a Job of its own" apply "$folder/job.json"
refused "a Job of the Job controller's" "have managedBy" apply "$folder/stock.json"
jq -n '{apiVersion: "v1", kind: "Secret", type: "kubernetes.io/service-account-token", metadata: {name: "provisioning-ssh",
  annotations: {"kubernetes.io/service-account.name": "provisioning-executor"}}}' >"$folder/token.json"
secret() { kubectl create secret generic "$1" -n "$space" --as "$operator" --dry-run=server; }
allowed "the SSH key" secret provisioning-ssh
refused "another Secret" "no Secret but" secret other
refused "an account's token" "no Secret but" apply "$folder/token.json"
account() { kubectl create serviceaccount "$1" -n "$space" --as "$operator" --dry-run=server; }
allowed "the provider's account" account provisioning-local-provider
refused "another account" "no ServiceAccount but" account other
manifest() { jq -n --arg name "$1" '{apiVersion: "coordination.k8s.io/v1", kind: "Lease", metadata: {name: $name}, spec: {holderIdentity: "x"}}' >"$folder/lease.json"; }
# lease NAME NAMESPACE: may the operator make it?
lease() { manifest "$1"; kubectl create --dry-run=server -n "$2" --as "$operator" -f "$folder/lease.json"; }
unlease() { kubectl delete lease "$1" -n "$space" --as "$operator" --dry-run=server --wait=false; }
# Its own lock is there already where an operator ran before.
own_lock() { local said; said=$(lease provisioning-operator provisioning-system 2>&1) || grep -q 'already exists' <<<"$said" || { echo "$said" >&2; return 1; }; }
words='no Lease but claims of runs'
claim=prov-0123456789abcdef0123456789abcdef
allowed "a claim" lease $claim "$space"
allowed "its own lock" own_lock
refused "another Lease" "$words" lease other "$space"
refused "a name that is nearly a claim's" "$words" lease "$claim-x" "$space"
refused "a leader's of Kubernetes" "$words" lease kube-scheduler kube-system
refused "its own lock elsewhere" "$words" lease provisioning-operator "$space"
for name in $claim other; do manifest $name; kubectl create -n "$space" -f "$folder/lease.json" >/dev/null; done
allowed "deletes a claim" unlease $claim
refused "deletes no other Lease" "$words" unlease other
allowed "nobody else is looked at" kubectl delete lease other -n "$space"
binding() { kubectl create rolebinding provisioning-executor --clusterrole "$1" --serviceaccount "$space:provisioning-executor" -n "$space" --as "$operator" --dry-run=server; }
allowed "binds the executor's role" binding provisioning-executor
refused "binds no other" "is forbidden" binding provisioning-tenant
refused "least of all this one" "is forbidden" binding cluster-admin

# --- who may do what ----------------------------------------------------------------------------------------------------
ours="workspaces.provisioning.dev providerconfigs.provisioning.dev servers.provisioning.dev taskservs.provisioning.dev batchworkflows.provisioning.dev clusters.provisioning.dev"
status=$(for kind in $ours; do echo "$kind:status"; done)
for verb in get list watch patch; do may "$operator" yes - $verb $ours; done
for verb in update patch; do may "$operator" yes - $verb $status; done
for verb in create update; do may "$operator" yes - $verb servers.provisioning.dev taskservs.provisioning.dev clusters.provisioning.dev; done
may "$operator" no - update workspaces.provisioning.dev providerconfigs.provisioning.dev batchworkflows.provisioning.dev
may "$operator" no - create workspaces.provisioning.dev providerconfigs.provisioning.dev batchworkflows.provisioning.dev
may "$operator" no - delete workspaces.provisioning.dev
for verb in get list watch create; do may "$operator" yes - $verb jobs pods; done
may "$operator" yes - delete jobs
may "$operator" no - delete pods
for verb in get list watch update patch delete; do may "$operator" no - $verb secrets; done
may "$operator" yes - delete secrets/provisioning-ssh
may "$operator" no "$space" get secrets/provisioning-ssh
may "$operator" no - create pods:exec pods:attach pods:portforward pods:eviction serviceaccounts:token nodes:proxy
may "$operator" no - update jobs pods configmaps serviceaccounts roles rolebindings clusterroles clusterrolebindings leases
may "$operator" no - create roles clusterroles clusterrolebindings namespaces nodes
may "$operator" no - watch configmaps
may "$operator" yes provisioning-system watch configmaps
may "$operator" yes provisioning-system patch leases/provisioning-operator
may "$operator" no provisioning-system update leases/provisioning-operator
may "$operator" yes - patch jobs:status
may "$operator" no - update jobs:status
may "$operator" no - delete rolebindings namespaces
for verb in get list create delete; do may "$operator" yes - $verb leases; done
may "$operator" yes "$site" delete rolebindings

kubectl create rolebinding executor --clusterrole provisioning-executor --serviceaccount "$space:provisioning-executor" -n "$space" >/dev/null
# No executor works for a Cluster.
may "$executor" yes "$space" get ${ours% *} leases
may "$executor" no "$space" get clusters.provisioning.dev
may "$executor" yes "$space" create leases
for verb in list watch update patch delete; do may "$executor" no "$space" $verb $ours leases; done
for verb in get list create delete; do may "$executor" no "$space" $verb pods secrets configmaps jobs; done
for verb in update patch; do may "$executor" no "$space" $verb $status; done
may "$executor" no "$space-role" get $ours leases

for role in tenant view edit admin; do
  aggregate=$role; [ $role = tenant ] && aggregate=provisioning-tenant
  kubectl create rolebinding "$role" --clusterrole "$aggregate" --user "check-$role" -n "$space-role" >/dev/null
done
for verb in get list watch; do may check-tenant yes "$space-role" $verb $ours jobs pods configmaps events; done
may check-tenant yes "$space-role" get pods:log
for verb in create update patch delete deletecollection; do
  may check-tenant yes "$space-role" $verb ${ours#* }
  may check-tenant no "$space-role" $verb workspaces.provisioning.dev pods jobs secrets configmaps leases serviceaccounts rolebindings
done
may check-tenant no "$space-role" get secrets
may check-tenant no "$space-role" create pods:exec pods:attach pods:ephemeralcontainers serviceaccounts:token
may check-tenant no "$space" get $ours
for who in tenant view edit admin; do
  for verb in update patch; do may check-$who no "$space-role" $verb $status; done
  may check-$who yes "$space-role" get $ours
done
may check-view no "$space-role" create $ours
may check-edit yes "$space-role" create ${ours#* }
may check-edit no "$space-role" delete workspaces.provisioning.dev
may check-admin yes "$space-role" delete $ours

echo "$passed rules hold, $failed do not"
[ "$failed" = 0 ]
