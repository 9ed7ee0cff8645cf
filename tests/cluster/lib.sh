# Names, addresses and helpers that the scripts of the test cluster share; sourced, not run.
set -euo pipefail

export CLUSTER_STARTED=${CLUSTER_STARTED:-$EPOCHSECONDS} # one clock for scripts that call each other
here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cache=${MINIMALIMAGE_CACHE:-$HOME/.cache/minimalimage} # outlives `down`: programs, images, packages
bin=$cache/bin
state=/var/lib/minimalimage # the cluster itself: `down` removes it
run=/run/minimalimage       # pid files and sockets

# Host, node and Pods reach this one address, so that a reference means the same everywhere.
# The ranges are RFC 2544's, for tests: they collide with no real network.
address=198.18.255.1
pod_range=198.18.0.0/17
service_range=198.19.0.0/24
bridge=minimalimage0

registry=$address:5000      # no authentication; builder images are here
registry_two=$address:5001  # no authentication; base images are here
registry_auth=$address:5002 # basic authentication
registry_tls=$address:5003  # HTTPS, certificate of the cluster's authority
registry_user=builder
registry_password=builder-password
git_url=http://$address:5080
git_tls_url=https://$address:5443
git_user=git
git_password=git-password

log() { printf '[%ds] %s\n' $((EPOCHSECONDS - CLUSTER_STARTED)) "$*" >&2; }

die() {
  log "error: $*"
  exit 1
}

# await SECONDS WHAT COMMAND...: asks the command again until it succeeds; past the deadline, dies.
await() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    ((SECONDS < deadline)) || die "gave up awaiting $what; logs are in $state/log"
    sleep 0.1
  done
}

# serve NAME COMMAND...: starts a process that outlives the script, unless it runs with these very arguments.
serve() {
  local name=$1
  shift
  if running "$name" && [ "$(cat "$run/$name.command")" = "$* " ]; then
    return
  fi
  stop "$name"
  log "starting $name"
  mkdir -p "$run" "$state/log"
  echo "$* " >"$run/$name.command"
  # 9 is the lock of `up`: a server that kept it would lock the next `up` out.
  setsid bash -c 'echo $$ >"$0"; exec "$@"' "$run/$name.pid" "$@" </dev/null >>"$state/log/$name.log" 2>&1 9>&- &
  await 5 "the process of $name" running "$name"
}

# A pid file may be older than a reboot, so the process must also be the one that was started.
running() {
  local pid
  pid=$(cat "$run/$1.pid" 2>/dev/null) || return 1
  [ "$(tr '\0' ' ' 2>/dev/null <"/proc/$pid/cmdline")" = "$(cat "$run/$1.command")" ]
}

stop() {
  local name=$1 pid
  if running "$name"; then
    pid=$(cat "$run/$name.pid")
    log "stopping $name"
    kill "$pid"
    for _ in {1..50}; do
      running "$name" || break
      sleep 0.1
    done
    ! running "$name" || kill -KILL "$pid"
  fi
  rm -f "$run/$name.pid" "$run/$name.command"
}

kubectl() { "$bin/kube" kubectl --kubeconfig "$state/admin.kubeconfig" "$@"; }

ctr() { command ctr --address "$run/containerd.sock" --namespace k8s.io "$@"; }

serve_containerd() {
  serve containerd containerd --config "$state/containerd.toml"
  await 30 containerd ctr version
}
