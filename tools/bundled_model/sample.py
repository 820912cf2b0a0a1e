#!/usr/bin/env python3
"""Let a checkpoint tell stories or answer, measure its perplexity, or write its logits to check an engine against.

    sample.py --checkpoint model.pt --tokenizer tok.model --prompt "Once upon a time" --count 5 --temperature 0.8
    sample.py --checkpoint model.pt --tokenizer tok.model --prompt "<|user|>Tell me a story.<|end|><|assistant|>"
    sample.py --checkpoint model.pt --tokenizer tok.model --f16 --held-out 600
"""
import argparse
import math
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from facts import Texts
from model import Llama, load
from tokens import BOS, EOS, TURNS, Tokenizer


@torch.no_grad()
def continue_from(model: Llama, ids: list[int], temperature: float, generator: torch.Generator) -> list[int]:
    """Tokens until one that ends a text or a turn, or the window is full; temperature 0 is greedy. No cache: it is small."""
    ids, asked = list(ids), len(ids)
    while len(ids) < model.shape.window and (len(ids) <= asked or ids[-1] not in (EOS, TURNS["<|end|>"])):
        logits = model(torch.tensor([ids]), last=1)[0][0, -1]
        if temperature == 0:
            ids.append(int(logits.argmax()))
        else:
            ids.append(int(torch.multinomial(torch.softmax(logits / temperature, -1), 1, generator=generator)))
    return ids


@torch.no_grad()
def print_held_out(model: Llama, tokenizer: Tokenizer, count: int) -> None:
    """The loss on stories of a seed that training does not use, each by itself, its end included."""
    texts = Texts(random.Random("held out"))
    loss, tokens, words = 0.0, 0, 0
    for _ in range(count):
        story = texts.story([])
        ids = torch.tensor([[BOS, *tokenizer.encode(story), EOS]])
        loss += F.cross_entropy(model(ids[:, :-1])[0][0], ids[0, 1:], reduction="sum").item()
        tokens += ids.shape[1] - 1
        words += len(story.split())
    print(f"{count} stories, {words} words, {tokens} tokens: {loss / tokens:.4f} nats a token, {loss / words:.4f} a word, "
          f"perplexity {math.exp(loss / tokens):.3f}")


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
    parser.add_argument("--held-out", type=int, metavar="COUNT", help="measure the loss on so many new stories, then stop")
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = load(args.checkpoint, args.f16)
    tokenizer = Tokenizer(args.tokenizer)
    if args.held_out:
        return print_held_out(model, tokenizer, args.held_out)
    prompt = [BOS, *tokenizer.encode(args.prompt)]
    if args.logits:
        with torch.no_grad():
            model(torch.tensor([prompt]))[0][0].numpy().astype(np.float32).tofile(args.logits)
        print(*prompt)
        return
    generator = torch.Generator().manual_seed(args.seed)
    for _ in range(args.count):
        ids = continue_from(model, prompt, args.temperature, generator)
        ended = "ended" if len(ids) < model.shape.window else "window full"
        print(f"{tokenizer.decode(ids[1:])}  [{len(ids)} tokens, {ended}]\n")


if __name__ == "__main__":
    main()
