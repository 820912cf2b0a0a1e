#!/usr/bin/env bash
# Installs what is missing, builds, and runs the bundled model on a prompt. Arguments go to `contexture run`:
#   ./run.sh -m MODEL.gguf -p "The capital of France is" -n 40
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
from=$PWD
cd "$here"
source tools/setup.sh
# shellcheck disable=SC2046
install_packages $(packages_to build)
# Tests need more packages: they are left out where those are not there, and stay as they are where they were built.
tests=()
[[ -e build/build.ninja ]] || tests=(-DCONTEXTURE_TESTS=OFF -DCONTEXTURE_BENCH=OFF)
configure release "${tests[@]}"
build release program
cd "$from" # so that paths in arguments mean what they say
if (($# == 0)); then set -- -p "Once upon a time"; fi
exec "$here/build/contexture" run "$@"
