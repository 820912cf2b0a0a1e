#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Arguments go to ctest: ./test.sh -R Gguf
set -euo pipefail
cd "$(dirname "$0")"
source tools/setup.sh
# shellcheck disable=SC2046
install_packages $(packages_to build) $(packages_to test)
configure release -DCONTEXTURE_TESTS=ON -DCONTEXTURE_BENCH=ON
build release
exec ctest --test-dir build --output-on-failure -j "$(nproc)" "$@"
