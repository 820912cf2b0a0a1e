#!/usr/bin/python3
"""Holds the logits of two programs against each other.

usage: compare_logits.py OURS.npy PEER.f32

OURS.npy is what `contexture logits -o` writes; PEER.f32 holds raw float32 logits of the same tokens (tokens x
vocabulary). Prints the least cosine of a row, and in how many rows the likeliest token differs although the peer's first
choice leads by more than 0.15. Exits 1 below a cosine of 0.999 or with any such row.
"""
import sys

import numpy as np


def main() -> int:
    if len(sys.argv) != 3:
        print(__doc__, file=sys.stderr)
        return 2
    ours = np.load(sys.argv[1]).astype(np.float64)
    peer = np.fromfile(sys.argv[2], np.float32).reshape(ours.shape).astype(np.float64)
    cosine = (ours * peer).sum(1) / np.sqrt((ours**2).sum(1) * (peer**2).sum(1))
    first_two = np.sort(peer, 1)[:, -2:]
    clear = first_two[:, 1] - first_two[:, 0] > 0.15
    other = clear & (ours.argmax(1) != peer.argmax(1))
    print(f"{len(ours)} rows: cosine at least {cosine.min():.6f}, median {np.median(cosine):.6f}; "
          f"another choice in {other.sum()} of {clear.sum()} clear rows")
    return int(cosine.min() < 0.999 or other.any())


if __name__ == "__main__":
    sys.exit(main())
