#!/usr/bin/env python3
"""Train the bundled model on stories, one a line, and write checkpoints.

    train.py --tokenizer tok.model --train train.txt --held-out held_out.txt --out model.pt --steps 14000

Run again with the same arguments, it goes on from the checkpoint. The same arguments on the same CPU give the same model.
"""
import argparse
import math
import os
import subprocess
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from model import Llama, Shape

BOS, EOS = 1, 2


def encode(tokenizer: Path, text: Path) -> list[list[int]]:
    """Token ids of every line, by SentencePiece's own encoder, with BOS and EOS around them."""
    command = ["spm_encode", f"--model={tokenizer}", "--output_format=id", f"--input={text}"]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return [[BOS, *map(int, line.split()), EOS] for line in lines]


def pack(stories: list[list[int]], length: int) -> np.ndarray:
    """Rows of `length` tokens, each from the start of a story; what is cut off the last story of a row is dropped.

    So position 0 always is the start of a story, as it is at inference, and no token is padding.
    """
    rows, row = [], []
    for story in stories:
        row += story
        if len(row) >= length:
            rows.append(row[:length])
            row = []
    return np.array(rows, dtype=np.int64)


def learning_rate(step: int, args: argparse.Namespace) -> float:
    """Linear warm-up, then a half cosine down to zero at the last step."""
    if step < args.warm_up:
        return args.lr * (step + 1) / args.warm_up
    return args.lr * 0.5 * (1 + math.cos(math.pi * (step - args.warm_up) / (args.steps - args.warm_up)))


@torch.no_grad()
def held_out_loss(model: Llama, rows: torch.Tensor, batch: int) -> float:
    """Mean cross-entropy a token, in nats."""
    total = 0.0
    for at in range(0, len(rows), batch):
        part = rows[at:at + batch]
        total += F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    return total / rows[:, 1:].numel()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the SentencePiece model")
    parser.add_argument("--train", type=Path, required=True, help="stories to learn from, one a line")
    parser.add_argument("--held-out", type=Path, required=True, help="stories to measure on, one a line")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, and to go on from if it is there")
    parser.add_argument("--steps", type=int, default=14000)
    parser.add_argument("--batch", type=int, default=4, help="rows of 256 tokens in a step")
    parser.add_argument("--lr", type=float, default=3e-3)
    parser.add_argument("--warm-up", type=int, default=100, help="steps")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--save-every", type=int, default=500, help="steps between checkpoints")
    return parser.parse_args()


def main() -> None:
    args = arguments()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # tiny second moments of Adam otherwise take the slow path of the CPU
    shape = Shape()
    model = Llama(shape).to(args.device)
    decayed = [p for p in model.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    optimizer = torch.optim.AdamW([{"params": decayed, "weight_decay": 0.1}, {"params": norms, "weight_decay": 0.0}],
                                  lr=args.lr, betas=(0.9, 0.98), eps=1e-9)
    rows = torch.from_numpy(pack(encode(args.tokenizer, args.train), shape.window + 1))
    held_out = torch.from_numpy(pack(encode(args.tokenizer, args.held_out), shape.window + 1)).to(args.device)
    step = 0
    if args.out.exists():
        saved = torch.load(args.out, map_location=args.device)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, {len(rows)} rows, from step {step}", flush=True)

    started, first = time.time(), step
    while step < args.steps:
        picked = torch.arange(step * args.batch, (step + 1) * args.batch) % len(rows)  # the corpus is in random order
        batch = rows[picked].to(args.device)
        loss = F.cross_entropy(model(batch[:, :-1]).flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(step, args)
        optimizer.step()
        step += 1
        if step % 50 == 0:
            speed = (step - first) * args.batch * shape.window / (time.time() - started)
            print(f"step {step}/{args.steps}  loss {loss.item():.4f}  lr {learning_rate(step, args):.2e}  {speed:.0f} tokens/s",
                  flush=True)
        if step % args.save_every == 0 or step == args.steps:
            print(f"step {step}  held-out loss {held_out_loss(model, held_out, args.batch):.4f}", flush=True)
            partial = args.out.with_suffix(".partial")
            torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, partial)
            os.replace(partial, args.out)  # an interrupted save never costs the last good checkpoint


if __name__ == "__main__":
    main()
