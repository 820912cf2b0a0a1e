#!/usr/bin/env bash
# Holds the logits of random models of every family (tools/random_model.py) against those of another program.
#
# usage: tools/compare_families.sh PEER [TYPE [NAME...]]
#
# PEER is a command that understands: PEER logits MODEL THREADS KV FLASH-ATTENTION OUT.f32 TOKEN...
# (float32 logits, tokens x vocabulary). TYPE of the weights: f32 (unless given), f16 or q8_0. NAME: as random_model.py
# --list prints them (unless given: all). CONTEXTURE (build/contexture), TOKENS (300) and SEED (fresh, and printed) may
# be set. Exits 1 where a model differs; compare_logits.py says what that means. f32 is the check. With f16 and q8_0 each
# program rounds activations in its own way, and random layers widen that: rows of 0.99, and other experts chosen.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 1 ] || { sed -n '2,10s/^# \?//p' "tools/$(basename "$0")" >&2; exit 2; }
peer=$1 type=${2:-f32}
shift $(($# < 2 ? $# : 2))
[ $# -gt 0 ] || mapfile -t names < <(tools/random_model.py --list)
[ $# -eq 0 ] || names=("$@")
contexture=${CONTEXTURE:-build/contexture} count=${TOKENS:-300} seed=${SEED:-$((RANDOM * 32768 + RANDOM))}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

RANDOM=$((seed % 32768))
tokens=()
for ((i = 0; i < count; i++)); do tokens+=($((RANDOM % 768))); done # 768: the vocabulary of all of them
echo "SEED=$seed TYPE=$type TOKENS=$count"

failed=0
for name in "${names[@]}"; do
  model=$folder/$name.gguf
  tools/random_model.py "$name" "$model" --type "$type" --seed "$seed"
  printf '%-16s ' "$name"
  "$contexture" logits -m "$model" --ctk f32 --ctv f32 --tokens "$(IFS=,; echo "${tokens[*]}")" \
    -o "$folder/ours.npy" > "$folder/log" && "$peer" logits "$model" 2 f32 off "$folder/peer.f32" "${tokens[@]}" &&
    tools/compare_logits.py "$folder/ours.npy" "$folder/peer.f32" || failed=1
  rm -f "$folder"/*
done
exit $failed
