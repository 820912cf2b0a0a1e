# Sourced by run.sh, test.sh and .ci/run: installs missing packages, configures and builds.
# shellcheck shell=bash

fail() {
  echo "error: $*" >&2
  exit 1
}

# Those of a part of packages.txt: "build" or "test".
packages_to() {
  local part='1,/^# To test/p'
  [[ $1 == build ]] || part='/^# To test/,$p'
  sed -n "$part" packages.txt | sed 's/#.*//' | xargs
}

# Of the named packages, those that this machine lacks.
missing_packages() {
  local name
  command -v dpkg-query >/dev/null || return 0
  for name in "$@"; do
    dpkg-query -W -f='${Status}' "$name" 2>/dev/null | grep -q '^install ok installed$' || echo "$name"
  done
}

# install_packages NAME...: those that are missing, and says which.
install_packages() {
  command -v dpkg-query >/dev/null || fail "this is no Debian; install what packages.txt lists, then: cmake --preset release && cmake --build --preset release"
  local missing sudo=()
  mapfile -t missing < <(missing_packages "$@")
  ((${#missing[@]})) || return 0
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

# configure PRESET [FLAG...]: quiet where it succeeds. A compiler cache is used where there is one and nobody has chosen
# another way: paths count from the checkout, so that another clone finds what was compiled in this one.
configure() {
  local preset=$1 log launcher=()
  shift
  log=$(mktemp)
  if [[ ! ${CMAKE_CXX_COMPILER_LAUNCHER:-} ]] && command -v ccache >/dev/null; then
    launcher=("-DCMAKE_CXX_COMPILER_LAUNCHER=env;CCACHE_BASEDIR=$PWD;CCACHE_NOHASHDIR=1;ccache")
  fi
  if ! cmake --preset "$preset" "${launcher[@]}" "$@" >"$log" 2>&1; then
    tail -20 "$log" >&2
    fail "configuring failed (preset $preset); the whole log is $log"
  fi
  rm -f "$log"
}

# build PRESET [TARGET...]: quiet where nothing is to do.
build() {
  local preset=$1 log
  shift
  log=$(mktemp)
  echo "building ($preset)" >&2
  if ! cmake --build --preset "$preset" ${1:+--target "$@"} >"$log" 2>&1; then
    grep -E 'error|FAILED' -A3 "$log" | head -40 >&2 || true
    fail "the build failed (preset $preset); the whole log is $log"
  fi
  rm -f "$log"
}
