#!/usr/bin/env bash
# Installs what is missing, builds, and runs every test. Arguments go to ctest: ./test.sh -R Gguf
set -euo pipefail
cd "$(dirname "$0")"
source tools/setup.sh
install_packages
build release
exec ctest --test-dir build --output-on-failure -j "$(nproc)" "$@"
