#!/usr/bin/env bash
# Times this program and another in turn on the same models and prints the ratios as a table.
#
# usage: tools/compare_peers.sh PEER FOLDER [TEST...]
#
# PEER is a command that understands: PEER bench MODEL THREADS PREFILL DEPTH DECODE KV FLASH-ATTENTION REPEATS, and prints
# for each repeat a JSON line with "test" ("prefill" or "decode") and "tokens_per_second"; FLASH-ATTENTION is 0 or 1, and
# the better of the two counts. FOLDER holds 1b-q4_0.gguf, 1b-q8_0.gguf, 1b-q4_k.gguf and 1b-f16.gguf: any model, the same
# in each format. TEST names rows (unless given: all; compare_peers.py lists them). CONTEXTURE (build/contexture), THREADS
# (2) and ROUNDS (5) may be set. Leave the machine alone meanwhile: all rows take about an hour.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { sed -n '2,11s/^# \?//p' "tools/$(basename "$0")" >&2; exit 2; }
exec tools/compare_peers.py "$@"
