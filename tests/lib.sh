# What the scripts of the Makefile share; sourced, not run. Names and helpers are those of the test cluster's scripts.
source "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/cluster/lib.sh"
unset -f kubectl # The one in PATH, for whichever cluster is used.

root=$(dirname "$(dirname "$here")") # $here is tests/cluster
tests=$root/tests
system=minimalimage-system # namespace of the operator
release=minimalimage
rust_target=x86_64-unknown-linux-musl     # static; the machine's own loads libraries, which an image from scratch lacks
schema_dir=$cache/schemas                 # for kubeconform
failed_label=minimalimage.dev/test=failed # what a failed test leaves, by tests/cluster/fixture.rs
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$cache/target} # as in the Makefile

# version: the one of Cargo.toml, which every other place takes it from.
version() { sed -n 's/^version = "\(.*\)"$/\1/p' "$root/Cargo.toml" | head -1; }

# use_cluster: puts KUBECONFIG, the addresses of registries and the tools into the environment.
use_cluster() {
  local exports
  exports=$("$tests/cluster/env")
  eval "$exports"
}

# start_cluster: one that runs, in the environment; says why there is none.
start_cluster() {
  "$tests/cluster/up" >/dev/null || {
    "$tests/dump"
    die "the cluster does not start"
  }
  use_cluster
}

# plain_http REGISTRY: whether it speaks http; one that asks for a login (401) does too.
plain_http() {
  local status # a redirect to https is no plain http
  status=$(curl -s -o /dev/null -w '%{http_code}' --max-time 5 --noproxy '*' "http://$1/v2/") || return
  [ "$status" = 200 ] || [ "$status" = 401 ]
}

# registries: the settings of the operator for the registries in the environment, as YAML.
registries() {
  local name
  for name in ${MINIMALIMAGE_REGISTRY:-} ${MINIMALIMAGE_REGISTRY2:-} ${MINIMALIMAGE_REGISTRY_AUTH:-}; do
    if plain_http "$name"; then
      printf '"%s": {plainHttp: true}\n' "$name"
    fi
  done
}
