#!/usr/bin/env bash
# Builds everything for 64-bit ARM and runs every test under qemu's user mode. Arguments go to ctest:
#   tools/test_aarch64.sh -R Matmul
# Installs a cross compiler and qemu. The ARM libraries are unpacked into build-aarch64-libraries/ and not installed: the
# machine's own packages, and its list of architectures, stay as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh
libraries=$PWD/build-aarch64-libraries

# Debian's ARM packages of the libraries in packages.txt, and what they need, unpacked into $libraries.
unpack_libraries() {
  local wanted state=$libraries.apt log
  wanted=$(sed 's/#.*//' packages.txt | xargs -n 1 | grep -e '-dev$' | grep -v -e clang -e openmpi)
  if [[ -e $libraries/packages && $(<"$libraries/packages") == "$wanted" ]]; then return 0; fi
  echo "unpacking ARM libraries" >&2
  rm -rf "$libraries" "$state"
  mkdir -p "$libraries" "$state"/{lists,archives}/partial
  : >"$state/installed" # nothing is there, so that whatever is needed is fetched
  log=$(mktemp)
  local apt=(apt-get -y -qq -o APT::Architecture=arm64 -o APT::Architectures::=arm64 -o APT::Sandbox::User="$(id -un)"
             -o Dir::State="$state" -o Dir::State::status="$state/installed" -o Dir::Cache="$state")
  # shellcheck disable=SC2086
  { "${apt[@]}" update && "${apt[@]}" install --download-only --no-install-recommends $wanted libstdc++-12-dev; } >"$log" 2>&1 || {
    tail -5 "$log" >&2
    fail "fetching ARM packages failed; the whole log is $log"
  }
  for package in "$state"/archives/*.deb; do dpkg-deb -x "$package" "$libraries"; done
  # Links that begin at the root would lead to this machine's libraries.
  find "$libraries" -type l -lname '/*' -printf '%p %l\n' | while read -r link target; do
    ln -sfn "$libraries$target" "$link"
  done
  rm -rf "$state" "$log"
  echo "$wanted" >"$libraries/packages"
}

# shellcheck disable=SC2046
install_packages $(packages_to build) $(packages_to test) g++-aarch64-linux-gnu qemu-user
unpack_libraries
configure aarch64
build aarch64
ctest --test-dir build-aarch64 --output-on-failure -j "$(nproc)" "$@"

# The same numbers as on this machine, where the program is built for it too.
logits() { "$@" logits -p "Once upon a time, in a warm cave" -o build-aarch64/logits.npy --json; }
if [[ -x build/contexture ]]; then
  here=$(logits build/contexture) there=$(logits qemu-aarch64 -L "$libraries" build-aarch64/contexture)
  [[ $here == "$there" ]] || fail "logits differ: $here on this machine, $there on ARM"
  echo "logits are the same on this machine and on ARM: $there"
fi
