#!/usr/bin/env bash
# What takes longer than .ci/run may: run once before larger work is finished.
#
# usage: tools/long_checks.sh [STEP [ARGUMENT]]...     (every step, in this order)
#
#   tidy                  clang-tidy (.clang-tidy) over src; half an hour
#   needles [TOKENS]      all needles are found in so many tokens (131072), in every layout
#   layouts [N/M]         verify layouts --all, or share N of M of it; hours
#   fuzz [SECONDS]        every fuzz target for so long (600)
#   soak [SECONDS]        tests that draw fresh random cases, again and again for so long (3600)
#
# A failed step ends it with status 1, after a line that says which.
set -euo pipefail
cd "$(dirname "$0")/.."
source tools/setup.sh

# values_of ARRAY SUBCOMMAND FLAG: the values that the flag takes, which --help lists.
values_of() {
  local -n values=$1
  # shellcheck disable=SC2086
  mapfile -t values < <(build/contexture $2 --help | grep -oP -- "$3[, ].*?:\{\K[^}]*" | head -1 | tr ',' '\n')
  ((${#values[@]})) || fail "contexture $2 --help lists no values of $3"
}

program() {
  [[ -e build/build.ninja ]] || configure release
  build release contexture
}

check_tidy() {
  install_packages clang-tidy
  configure asan
  # Several files as one, as they are compiled; what is found in them is told of the files themselves.
  run-clang-tidy -quiet -p build-asan -header-filter "$PWD/(src|include)/.*" "$PWD/build-asan/src/|$PWD/src/" \
    >build-asan/tidy.log 2>&1 || { grep -E -A6 '(warning|error):' build-asan/tidy.log || tail -20 build-asan/tidy.log; return 1; }
  grep -q "^clang-tidy" build-asan/tidy.log || { tail -20 build-asan/tidy.log; echo "clang-tidy saw no file" >&2; return 1; }
}

check_needles() {
  local layouts layout found cold
  program
  values_of layouts "eval needle" --cache
  for layout in "${layouts[@]}"; do
    cold=()
    [[ $layout != mixed ]] || cold=(--cold-k-format f16 --cold-v-format f16)  # needles are lost where fewer bits are kept
    found=$(build/contexture eval needle --depths "${1:-131072}" --cache "$layout" "${cold[@]}" --json) || return 1
    echo "$found"
    [[ $found == *'"accuracy":1.0,'* ]] || { echo "a needle is lost ($layout)" >&2; return 1; }
  done
}

# A part is a layout with a format of K; a share has every so many of them.
check_layouts() {
  local share=${1:-1/1} part=0 layouts layout formats format
  [[ $share =~ ^([0-9]+)/([0-9]+)$ ]] && ((BASH_REMATCH[1] >= 1 && BASH_REMATCH[1] <= BASH_REMATCH[2])) ||
    fail "$share is no share; 2/8 is the second of eight"
  local -i which=${BASH_REMATCH[1]} of=${BASH_REMATCH[2]}
  program
  values_of layouts "verify layouts" --cache
  values_of formats "verify layouts" --ctk
  for layout in "${layouts[@]}"; do
    for format in "${formats[@]}"; do
      ((++part % of == which % of)) || continue
      echo "layout $layout, K in $format"
      build/contexture verify layouts --all --cache "$layout" --ctk "$format" || return 1
    done
  done
}

check_fuzz() {
  configure asan
  build asan fuzzers
  tools/fuzz.sh "${1:-600}"
}

check_soak() {
  local seconds=${1:-3600} rooms=(cache ring engine) room
  [[ -e build/build.ninja ]] || configure release
  build release "${rooms[@]/#/test_}"
  local -i ends=$((SECONDS + seconds)) rounds=0
  while ((SECONDS < ends)); do
    for room in "${rooms[@]}"; do
      build/test_"$room" --gtest_brief=1 >build/soak.log 2>&1 || { grep -B5 -A20 -e FAILED -e SEED build/soak.log | tail -60; return 1; }
    done
    rounds+=1
  done
  echo "$rounds rounds of fresh random cases, nothing found"
}

steps=(tidy needles layouts fuzz soak)
case ${1:-} in -h | --help) sed -n '2,/^set /{/^#/s/^# \?//p}' "$0" && exit ;; esac
(($#)) || set -- "${steps[@]}"
while (($#)); do
  step=$1 arguments=()
  shift
  [[ " ${steps[*]} " == *" $step "* ]] || fail "no step $step; there are: ${steps[*]}"
  if (($#)) && [[ " ${steps[*]} " != *" $1 "* ]]; then arguments=("$1") && shift; fi
  echo "== $step ${arguments[*]} ($((SECONDS / 60)) min)"
  "check_$step" "${arguments[@]}" || fail "$step has failed"
done
