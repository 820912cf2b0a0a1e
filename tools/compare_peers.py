#!/usr/bin/env python3
"""The work of compare_peers.sh, which says how it is called."""

import json
import os
import statistics
import subprocess
import sys

PROGRAM = os.environ.get("CONTEXTURE", "build/contexture")
THREADS = os.environ.get("THREADS", "2")
ROUNDS = int(os.environ.get("ROUNDS", "5"))

# name: (weights, test, tokens, depth, K and V)
TESTS = {f"{w}-decode": (w, "decode", 32, 0, "f16") for w in ("q4_0", "q8_0", "q4_k", "f16")}
TESTS |= {f"q4_0-decode-{d}-{kv}": ("q4_0", "decode", 32, d, kv) for d in (4096, 16384) for kv in ("f16", "q8_0", "q4_0")}
TESTS |= {f"{w}-prefill": (w, "prefill", 512, 0, "f16") for w in ("q4_0", "q8_0", "q4_k", "f16")}
TESTS |= {f"q4_0-prefill-4096-{kv}": ("q4_0", "prefill", 4096, 0, kv) for kv in ("f16", "q8_0")}


def lines_of(command):
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [json.loads(line) for line in out.splitlines() if line.startswith("{")]


def ours(model, test, tokens, depth, kv):
    prefill, decode = (tokens, 0) if test == "prefill" else (0, tokens)
    return lines_of([PROGRAM, "bench", "-m", model, "-t", THREADS, "-p", str(prefill), "-n", str(decode), "-d",
                     str(depth), "-ctk", kv, "-ctv", kv, "-r", "1", "--json"])[-1]


def theirs(peer, model, test, tokens, depth, kv, flash):
    prefill, decode = (tokens, 0) if test == "prefill" else (0, tokens)
    lines = lines_of([peer, "bench", model, THREADS, str(prefill), str(depth), str(decode), kv, flash, "1"])
    return max(line["tokens_per_second"] for line in lines if line["test"] == test)


def main():
    peer, folder, *names = sys.argv[1:]
    for name in names:
        if name not in TESTS:
            sys.exit(f"error: no test {name}; there are {' '.join(TESTS)}")
    print("| test | depth | K, V | tokens/s | peer | ratio | of read bandwidth |\n|---|---|---|---|---|---|---|", flush=True)
    for name in names or TESTS:
        weights, test, tokens, depth, kv = TESTS[name]
        model = os.path.join(folder, f"1b-{weights}.gguf")
        # Block formats of K and V need flash attention there.
        settings = ("1",) if kv != "f16" else ("0", "1")
        mine, other, shares = [], [], []
        for _ in range(ROUNDS):
            line = ours(model, test, tokens, depth, kv)
            mine.append(line["tokens_per_second"])
            shares.append(line["bandwidth_share"])
            other.append(max(theirs(peer, model, test, tokens, depth, kv, flash) for flash in settings))
        a, b = statistics.median(mine), statistics.median(other)
        share = f"{100 * statistics.median(shares):.0f} %" if test == "decode" else "–"
        print(f"| {weights} {test} {tokens} | {depth} | {kv} | {a:.1f} | {b:.1f} | {a / b:.2f} | {share} |", flush=True)


if __name__ == "__main__":
    main()
