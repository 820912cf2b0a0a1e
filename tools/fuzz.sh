#!/usr/bin/env bash
# Runs every libFuzzer target for SECONDS (default 10), starting from its seed corpus:  tools/fuzz.sh [SECONDS [TARGET...]]
# What is found stays as crash-* in the present folder. Needs: cmake --preset asan && cmake --build --preset asan --target fuzzers
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
seconds=${1:-10}
shift || true
targets=("$@")
((${#targets[@]})) || for source in "$here"/fuzz/*_fuzz.cc; do targets+=("$(basename "$source" .cc)"); done

fuzz() {
  local target=$1 work
  work=$(mktemp -d) # new inputs go here, not into the repository's seeds
  if ! "$here/build-asan/$target" -max_total_time="$seconds" -rss_limit_mb=1024 -malloc_limit_mb=128 -timeout=10 \
    -print_final_stats=1 -verbosity=0 "$work" "$here/fuzz/corpus/$target" >"$work/log" 2>&1; then
    tail -40 "$work/log" >&2
    echo "error: $target found the above" >&2
    exit 1
  fi
  echo "$target: $(grep -o '[0-9]*$' <<<"$(grep number_of_executed_units "$work/log")") inputs, nothing found"
  rm -rf "$work"
}
export -f fuzz
export here seconds
printf '%s\n' "${targets[@]}" | xargs -P "$(nproc)" -I{} bash -c 'fuzz {}'
