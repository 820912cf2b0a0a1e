#!/usr/bin/env python3
"""Train the bundled model, stage by stage, and write checkpoints.

    train.py --tokenizer tok.model --out model.pt

Run again with the same arguments, it goes on from the checkpoint. The same arguments on the same CPU give the same model.
"""
import argparse
import functools
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

import words
from facts import KINDS, Fact, Texts
from model import Llama, Points, Shape
from tokens import BOS, EOS, Tokenizer


STORY = 200  # no story has more tokens
BATCH = 4608  # tokens in a step: 18 windows of 256, or two of 2,304


@dataclass
class Stage:
    """Steps of windows of a length, drawn for each step; each window is of a kind, drawn by these weights."""
    steps: int
    tokens: list[int]
    kinds: dict[str, float]
    lr: float  # at its end; it goes there in a straight line from where the stage before ended
    answers: float = 8  # the weight of a token that must be remembered
    others: float = 1  # that of any other
    point: float = 0.1  # that of where heads should look
    repeats: bool = False  # whether stories show heads where to look, too
    strange: float = 0.05  # how often a question is on what was never told


# Which heads are shown where to look: what, layer, head.
HEADS = [("thing", 0, 0), ("color", 0, 2), ("place", 2, 0), ("place", 2, 2)]
REPEATS = [("name", 3, 0), ("word", 3, 2)]
DRILL = {"drill": 1}
ALL = {"drill": 0.05, "mixed": 0.25, "chat": 0.2, "plain": 0.5}
LONG = {"drill": 0.05, "mixed": 0.3, "chat": 0.3, "plain": 0.35}
STAGES = [
    Stage(steps=100, tokens=[64], kinds=DRILL, lr=3e-3, answers=1, others=0.1, point=0.2),
    Stage(steps=100, tokens=[128], kinds=DRILL, lr=3e-3, answers=1, others=0.1, point=0.2),
    Stage(steps=1500, tokens=[256], kinds=ALL, lr=2e-3),
    Stage(steps=300, tokens=[256] * 5 + [2304], kinds=ALL, lr=1.75e-3),
    Stage(steps=900, tokens=[256] * 5 + [2304], kinds=ALL, lr=1.2e-3, repeats=True),
    Stage(steps=500, tokens=[256] * 5 + [2304], kinds=ALL, lr=8.6e-4, repeats=True, strange=0.15),
    Stage(steps=700, tokens=[256, 256, 2304], kinds=LONG, lr=0, repeats=True, strange=0.15),
]


@dataclass
class Window:
    """A row of tokens, and what it asks to remember: 1 for a name or a token of an answer, 2 for its noun; and, from query
    to key, where to look for the thing, its color and the place, and for a name or a word that a story has said before."""
    ids: list[int]
    answer: list[int]
    thing: list[tuple[int, int]]
    color: list[tuple[int, int]]
    place: list[tuple[int, int]]
    name: list[tuple[int, int]]
    word: list[tuple[int, int]]


STORY_WORDS = tuple(word for record in words.TOYS + words.CLOTHES + words.TREASURES + words.FOODS
                    for word in f"{record['name']} {record['look'].replace('|', ' ')}".split())


@functools.cache
def single_tokens(tokenizer: Tokenizer, some: tuple[str, ...]) -> set[int]:
    return {tokens[0] for tokens in map(tokenizer.encode, some) if len(tokens) == 1}


def said_before(ids: list[int], wanted: set[int]) -> Iterator[tuple[int, int]]:
    """Where one of these tokens comes again: from the token before it to where it was said last."""
    last: dict[int, int] = {}
    for at, id in enumerate(ids):
        if id in wanted:
            if at - last.get(id, at) in range(1, STORY):
                yield at - 1, last[id]
            last[id] = at
        elif id == BOS:
            last.clear()


def window(texts: Texts, tokenizer: Tokenizer, kind: str, length: int) -> Window:
    """`length` tokens of a kind, cut off where they end."""
    w = Window([], [], [], [], [], [], [])
    while len(w.ids) < length:  # plain stories end, and others follow; the other kinds go on
        w.ids.append(BOS)
        nouns: dict[Fact, int] = {}  # where its place was told
        for part in KINDS[kind](texts, length):
            at = len(w.ids)
            ids = tokenizer.encode(part.text)
            w.ids += ids
            if part.does in ("tells", "asks"):
                thing = at + ids.index(*tokenizer.encode(part.fact.thing))
                color = at + ids.index(*tokenizer.encode(part.fact.color)) if part.fact.color in part.text.split() else thing
            queries = []
            if part.does == "tells":  # ... in the [barn].
                nouns[part.fact] = at + len(ids) - 2
                queries = [nouns[part.fact]]
            elif part.does == "answers":  # It [is] in [the] barn.
                assert len(ids) == 6, f"each word of an answer must be one token: {part.text}"
                queries = [at + 1, at + 3]
                w.place += [(query, nouns[part.fact]) for query in queries]
                w.answer += [0] * (at - len(w.answer)) + [1, 0, 1, 1, 2]
            elif part.does == "declines":
                w.answer += [0] * (at - len(w.answer)) + [1] * len(ids)
            w.thing += [(query, thing) for query in queries]
            w.color += [(query, color) for query in queries]
            if len(w.ids) >= length:
                break
        w.ids.append(EOS)
    w.answer += [0] * (len(w.ids) - len(w.answer))
    w.name += said_before(w.ids, single_tokens(tokenizer, (*words.GIRLS, *words.BOYS)))
    w.word += said_before(w.ids, single_tokens(tokenizer, STORY_WORDS))
    for points in (w.thing, w.color, w.place, w.name, w.word):
        points[:] = [(query, key) for query, key in points if query < length - 1]
    for query, _ in w.name:
        w.answer[query + 1] = 1
    w.ids, w.answer = w.ids[:length], w.answer[:length]
    return w


def batch(stage: Stage, texts: Texts, tokenizer: Tokenizer) -> tuple[Tensor, Tensor, list[Points]]:
    length = texts.rng.choice(stage.tokens)
    kinds = texts.rng.choices(list(stage.kinds), list(stage.kinds.values()), k=BATCH // length)
    windows = [window(texts, tokenizer, kind, length + 1) for kind in kinds]
    points = [Points(layer, head, torch.tensor([(row, *at) for row, w in enumerate(windows) for at in getattr(w, what)]))
              for what, layer, head in HEADS + (REPEATS if stage.repeats else [])]
    return torch.tensor([w.ids for w in windows]), torch.tensor([w.answer for w in windows]), points


def weighted_loss(logits: Tensor, targets: Tensor, answers: Tensor, stage: Stage) -> tuple[Tensor, Tensor, float]:
    """The loss to minimise; for people, which of the nouns to remember are right, and the loss of what is no answer."""
    losses = F.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
    answers = answers.flatten()
    weights = torch.where(answers > 0, stage.answers, stage.others)
    nouns = answers == 2
    right = (logits.detach().flatten(0, 1)[nouns].argmax(-1) == targets.flatten()[nouns]).float()
    return (losses * weights).sum() / weights.sum(), right, losses[answers == 0].mean().item()


class Muon(torch.optim.Optimizer):
    """Momentum whose step is made orthogonal: every direction a matrix can learn in gets the same pace.

    Keller Jordan's method; five steps of Newton-Schulz bring all singular values near one. The factor makes the step
    about as long as one of AdamW, so that both take the same learning rate.
    """

    def __init__(self, matrices: list[Tensor], weight_decay: float):
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                x = p.grad.lerp(momentum, 0.95)
                x = x / (x.norm() + 1e-7)
                x = x.t() if x.shape[0] > x.shape[1] else x
                for _ in range(5):
                    square = x @ x.t()
                    x = 3.4445 * x + (-4.7750 * square + 2.0315 * square @ square) @ x
                x = x.t() if x.shape != p.shape else x
                p.mul_(1 - group["lr"] * group["weight_decay"]).add_(x, alpha=-0.2 * max(p.shape)**0.5 * group["lr"])


def optimizers_for(model: Llama) -> list[torch.optim.Optimizer]:
    """Muon for the matrices of the layers, AdamW for the embedding and the norms."""
    matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
    norms = [p for p in model.parameters() if p.dim() == 1]
    return [Muon(matrices, 0.05),
            torch.optim.AdamW([{"params": [model.token_embd], "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}],
                              lr=0, betas=(0.9, 0.98), eps=1e-9)]


@torch.no_grad()
def spread_names(model: Llama, tokenizer: Tokenizer) -> None:
    """Set the embeddings of names apart. All names come up alike, so that training leaves them almost the same, and what
    can hardly be told apart is hardly learned to be copied."""
    for names in (words.GIRLS, words.BOYS):
        ids = sorted(single_tokens(tokenizer, tuple(names)))
        mean = model.token_embd[ids].mean(0)
        model.token_embd[ids] = mean + 4 * (model.token_embd[ids] - mean)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", type=Path, required=True, help="the SentencePiece model")
    parser.add_argument("--out", type=Path, required=True, help="checkpoint to write, and to go on from if it is there")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--save-every", type=int, default=100, help="steps between checkpoints")
    args = parser.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)  # tiny second moments of Adam otherwise take the slow path of the CPU
    model = Llama(Shape())
    optimizers = optimizers_for(model)
    tokenizer = Tokenizer(args.tokenizer)
    done = 0
    if args.out.exists():
        saved = torch.load(args.out)
        model.load_state_dict(saved["model"])
        for optimizer, state in zip(optimizers, saved["optimizers"]):
            optimizer.load_state_dict(state)
        done = saved["step"]
    print(f"{sum(p.numel() for p in model.parameters())} parameters, from step {done}", flush=True)

    step, lr, count = 0, 0.0, 20
    for before, stage in zip([STAGES[0], *STAGES], STAGES):
        if step >= done and stage.repeats and not before.repeats:
            spread_names(model, tokenizer)
        for i in range(stage.steps):
            step += 1
            if step <= done:
                continue
            if count == 20:
                started, rights, others, count = time.time(), torch.empty(0), 0.0, 0
            texts = Texts(random.Random(f"{args.seed}/{step}"), stage.strange)
            ids, answers, points = batch(stage, texts, tokenizer)
            logits, astray = model(ids[:, :-1], points=points)
            loss, right, other = weighted_loss(logits, ids[:, 1:], answers[:, 1:], stage)
            model.zero_grad(set_to_none=True)
            (loss + stage.point * astray).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            now = lr + (stage.lr - lr) * (i + 1) / stage.steps
            for optimizer in optimizers:
                for group in optimizer.param_groups:
                    group["lr"] = now
                optimizer.step()
            rights, others, count = torch.cat([rights, right]), others + other, count + 1
            if count == 20:
                speed = count * BATCH / (time.time() - started)
                print(f"step {step}  remembered {rights.mean():.3f}  other loss {others / count:.4f}  "
                      f"astray {float(astray):.3f}  lr {now:.2e}  {speed:.0f} tokens/s", flush=True)
            if step % args.save_every == 0:
                partial = args.out.with_suffix(".partial")
                torch.save({"model": model.state_dict(), "optimizers": [o.state_dict() for o in optimizers],
                            "step": step}, partial)
                os.replace(partial, args.out)  # an interrupted save never costs the last good checkpoint
        lr = stage.lr


if __name__ == "__main__":
    main()
