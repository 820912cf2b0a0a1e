# Sourced by run.sh, test.sh and .ci/run: installs missing packages, configures and builds.
# shellcheck shell=bash

fail() {
  echo "error: $*" >&2
  exit 1
}

# Installs the named packages, or those of packages.txt, that this machine lacks, and says which.
install_packages() {
  command -v dpkg-query >/dev/null || fail "this is no Debian; install what packages.txt lists, then: cmake --preset release && cmake --build --preset release"
  local wanted=$* missing=() name
  [[ $wanted ]] || wanted=$(sed 's/#.*//' packages.txt | xargs)
  for name in $wanted; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' || missing+=("$name")
  done
  ((${#missing[@]})) || return 0
  local sudo=()
  if ((EUID != 0)); then
    command -v sudo >/dev/null || fail "these packages are missing: ${missing[*]}; install them as root (apt-get install), then try again"
    sudo=(sudo)
  fi
  echo "installing Debian packages: ${missing[*]}" >&2
  "${sudo[@]}" apt-get update -qq >&2 || fail "apt-get update failed; is the network there?"
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/tmp/contexture-apt.$$ 2>&1 || {
    tail -5 /tmp/contexture-apt.$$ >&2
    fail "apt-get install failed; its output is in /tmp/contexture-apt.$$"
  }
  rm -f /tmp/contexture-apt.$$
}

# build PRESET [TARGET...]: configures where needed and builds; quiet where nothing is to do.
build() {
  local preset=$1 log
  shift
  log=$(mktemp)
  if ! cmake --preset "$preset" >"$log" 2>&1; then
    tail -20 "$log" >&2
    fail "configuring failed (preset $preset); the whole log is $log"
  fi
  echo "building ($preset)" >&2
  if ! cmake --build --preset "$preset" ${1:+--target "$@"} >"$log" 2>&1; then
    grep -E 'error|FAILED' -A3 "$log" | head -40 >&2 || true
    fail "the build failed (preset $preset); the whole log is $log"
  fi
  rm -f "$log"
}
