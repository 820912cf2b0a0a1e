#!/usr/bin/env python3
"""Let a checkpoint tell stories, or print the logits of given tokens, to check the training and other engines against.

    sample.py --checkpoint model.pt --tokenizer tok.model --prompt "Once upon a time" --count 5 --temperature 0.8
"""
import argparse
import subprocess
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from model import Llama, Shape
from train import BOS, EOS


def spm(command: str, tokenizer: Path, text: str) -> str:
    """Run one of SentencePiece's command-line tools over one line."""
    tool = [command, f"--model={tokenizer}", "--output_format=id" if command == "spm_encode" else "--input_format=id"]
    return subprocess.run(tool, input=text + "\n", check=True, capture_output=True, text=True).stdout.rstrip("\n")


@torch.no_grad()
def continue_from(model: Llama, ids: list[int], temperature: float, random: torch.Generator) -> list[int]:
    """Tokens until EOS or the end of the window; temperature 0 is greedy. No cache: the model is small."""
    ids = list(ids)
    while len(ids) < model.shape.window and ids[-1] != EOS:
        logits: Tensor = model(torch.tensor([ids]))[0, -1]
        if temperature == 0:
            ids.append(int(logits.argmax()))
        else:
            ids.append(int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=random)))
    return ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the SentencePiece model")
    parser.add_argument("--prompt", default="Once upon a time")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--f16", action="store_true", help="round the matrices to F16 first, as the GGUF file holds them")
    parser.add_argument("--logits", type=Path, metavar="OUT", help="write float32 logits of BOS and the prompt, then stop")
    args = parser.parse_args()
    model = Llama(Shape())
    model.load_state_dict(torch.load(args.checkpoint, map_location="cpu")["model"])
    if args.f16:
        for p in model.parameters():
            if p.dim() == 2:
                p.data = p.data.half().float()
    prompt = [BOS, *map(int, spm("spm_encode", args.tokenizer, args.prompt).split())]
    if args.logits:
        with torch.no_grad():
            model(torch.tensor([prompt]))[0].numpy().astype(np.float32).tofile(args.logits)
        print(*prompt)
        return
    random = torch.Generator().manual_seed(args.seed)
    for _ in range(args.count):
        ids = continue_from(model, prompt, args.temperature, random)
        story = spm("spm_decode", args.tokenizer, " ".join(map(str, ids[1:])))
        print(f"{story}  [{len(ids)} tokens, {'ended' if ids[-1] == EOS else 'window full'}]\n")


if __name__ == "__main__":
    main()
