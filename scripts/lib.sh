# Sourced by the scripts that work on a platform: where the programs are, and how the operator is installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bin=${PROVISIONING_BIN:-target/bin}
provisioning=$bin/provisioning
kubectl=$(tools/build --print kubernetes)/kubectl
helm=$(tools/build --print helm)/helm
system=provisioning-system

say() { printf '\n--- %s\n' "$*" >&2; }
fail() { printf '%s: %s\n' "$(basename "$0")" "$*" >&2; exit 1; }

[ -x "$provisioning" ] || fail "there is no $provisioning; run make build first"

# use INSTANCE: talk to this platform.
use() {
    export PROVISIONING_INSTANCE=$1
    KUBECONFIG=$("$provisioning" platform kubeconfig)
    export KUBECONFIG
}

# install INSTANCE [TOLD]: start the platform, load the images, install the chart. TOLD is called with the name of each part
# after it.
install() {
    local instance=$1 told=${2:-:}
    "$provisioning" platform start --instance "$instance"
    "$told" "platform start"
    use "$instance"
    # shellcheck source=/dev/null
    . "$bin/images.env"
    "$provisioning" platform load-image "$OPERATOR_ARCHIVE" "$RUNNER_ARCHIVE" "$SERVER_ARCHIVE"
    "$told" "loading the images"
    install_chart "$instance" charts/provisioning
    "$told" "installing the chart"
    "$kubectl" -n $system get deployment provisioning-operator
}

# install_chart INSTANCE CHART [OPTION…]: install or upgrade the operator with the images of this checkout, or with those that
# the file $images_env names.
install_chart() {
    local instance=$1 chart=$2
    shift 2
    # shellcheck source=/dev/null
    . "${images_env:-$bin/images.env}"
    "$helm" upgrade --install provisioning "$chart" --namespace $system --create-namespace \
        --set image="$OPERATOR_IMAGE" --set runner.image="$RUNNER_IMAGE" --set local.image="$SERVER_IMAGE" \
        --set local.diskRoot="$(disks "$instance")" --wait --timeout 3m "$@" >/dev/null
}

# disks INSTANCE: where the disks of this platform's servers lie.
disks() { echo "/var/lib/provisioning/$1"; }

# show_until NAMESPACE WHAT KIND NAME: tells every change in the namespace until the object is WHAT.
show_until() {
    "$provisioning" -n "$1" watch providerconfig server taskserv cluster batchworkflow &
    local watching=$! code=0
    "$provisioning" -n "$1" wait "$3" "$4" --for "$2" --timeout 10m --keep-waiting || code=$?
    kill "$watching" 2>/dev/null || true
    wait "$watching" 2>/dev/null || true
    return $code
}
