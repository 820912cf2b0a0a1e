#!/usr/bin/env python3
"""Ask a checkpoint for facts that it read in stories it has never seen, and count the right answers by distance.

    recall.py --tokenizer tok.model --checkpoint model.pt [--questions questions.jsonl]
    recall.py --tokenizer tok.model --engine ../../build/contexture --count 40

A text is stories with facts between their sentences, one of which is asked for at the end. One other shares its color, one
its kind, none its place. The distance is counted in tokens, from the place where the fact says it to the place in the
answer. An answer is right when the likeliest tokens, one after another, are "It is", the place and the full stop.
"""
import argparse
import functools
import json
import random
import subprocess
from dataclasses import dataclass
from pathlib import Path

import torch

import words
from facts import ASSISTANT, COLORS, END, PLACES, THINGS, UNKNOWN, USER, Fact, Texts, strange_question
from model import Llama, load
from tokens import BOS, Tokenizer

BINS = [(16, 64), (65, 128), (129, 256), (257, 512), (513, 1024), (2000, 2100)]


@dataclass
class Question:
    prompt: str
    answer: str
    distance: int  # 0 where it was not measured


def draw(rng: random.Random, most: int) -> list[Fact]:
    """The fact to ask for, and others: one of its color, one of its kind, the rest as they come; all in other places."""
    people = words.GIRLS + words.BOYS
    count = rng.randint(4, most)
    color, thing = rng.choice(COLORS), rng.choice(THINGS)
    names = [(color, thing), (color, rng.choice(THINGS)), (rng.choice(COLORS), thing)]
    names += [(rng.choice(COLORS), rng.choice(THINGS)) for _ in range(count - 3)]
    place, *places = rng.sample(PLACES, count)
    if len(set(names)) < count:
        return draw(rng, most)
    return [Fact(rng.choice(people), *name, at) for name, at in zip(names, [place] + places)]


def ask(texts: Texts, tokenizer: Tokenizer, nearest: int, farthest: int, most: int) -> Question:
    """A text with a question at its end, whose fact is between `nearest` and `farthest` tokens before the answer."""
    def tokens(parts: list[str]) -> int:
        return len(tokenizer.encode(" ".join(parts)))

    rng = texts.rng
    while True:
        fact, *others = draw(rng, most)
        told = [other.told(rng) for other in others]
        early = rng.randint(0, len(told))  # so many are told before the fact
        filler = texts.sentences([fact, *others])
        end = [fact.asked(rng), fact.answered()]
        target = rng.randint(nearest, farthest)
        between: list[str] = []
        while tokens(between + told[early:] + end) < target:
            between.append(next(filler))
        distance = tokens(between + told[early:] + end) - 1  # less the full stop
        if not nearest <= distance <= farthest:
            continue
        before = [next(filler) for _ in range(rng.choice([0, 1, 2, 4]))]
        for i, other in enumerate(told):
            place = before if i < early else between
            place.insert(rng.randint(0, len(place)), other)
        return Question(" ".join([*before, fact.told(rng), *between, end[0]]), end[1], distance)


def ask_in_chat(rng: random.Random, most: int) -> Question:
    """Turns that each tell a fact, some with a question on it; the last asks for one of an earlier turn."""
    facts = draw(rng, most)
    prompt = ""
    for fact in rng.sample(facts, len(facts)):
        asks = rng.random() < 0.5
        prompt += USER + fact.told(rng) + (" " + fact.asked(rng) if asks else "") + END
        prompt += ASSISTANT + (fact.answered() if asks else "All right.") + END
    return Question(prompt + USER + facts[0].asked(rng) + END + ASSISTANT, facts[0].answered(), 0)


def ask_strange(texts: Texts, most: int) -> Question:
    """A story with facts, and a question on what none of them is about."""
    facts = draw(texts.rng, most)
    filler = texts.sentences(facts)
    parts = [part for fact in facts for part in (fact.told(texts.rng), next(filler))]
    return Question(" ".join([*parts, strange_question(texts.rng, facts)]), UNKNOWN, 0)


@torch.no_grad()
def model_is_right(model: Llama, tokenizer: Tokenizer, question: Question) -> bool:
    """Whether greedy decoding gives the answer: whether each of its tokens is the likeliest after those before it."""
    prompt = [BOS, *tokenizer.encode(question.prompt)]
    answer = tokenizer.encode(question.answer)
    likeliest = model(torch.tensor([prompt + answer[:-1]]), last=len(answer))[0][0].argmax(-1)
    return likeliest.tolist() == answer


def engine_is_right(engine: list[str], tokenizer: Tokenizer, question: Question) -> bool:
    """Whether an engine's command, `contexture run` with a model, says the same."""
    count = len(tokenizer.encode(question.answer))
    command = [*engine, "--json", "--temp", "0", "-n", str(count), "-"]
    ended = subprocess.run(command, input=question.prompt, check=True, capture_output=True, text=True)
    return json.loads(ended.stdout)["text"].strip() == question.answer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked = parser.add_mutually_exclusive_group(required=True)
    asked.add_argument("--checkpoint", type=Path, help="what train.py wrote")
    asked.add_argument("--engine", type=Path, help="the program `contexture`, to ask it instead")
    parser.add_argument("--model", type=Path, help="with --engine: the GGUF file, if not the bundled one")
    parser.add_argument("--tokenizer", type=Path, required=True, help="the SentencePiece model")
    parser.add_argument("--count", type=int, default=500, help="questions for a distance up to 256; half as many elsewhere")
    parser.add_argument("--facts", type=int, default=8, help="facts in a text, at most")
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--f16", action="store_true", help="round the matrices to F16 first, as the GGUF file holds them")
    parser.add_argument("--questions", type=Path, metavar="OUT", help="write them as JSON lines too, to ask an engine")
    args = parser.parse_args()
    torch.set_num_threads(1)
    tokenizer = Tokenizer(args.tokenizer)
    if args.engine:
        run = [str(args.engine), "run", *(["-m", str(args.model)] if args.model else [])]
        is_right = functools.partial(engine_is_right, run, tokenizer)
    else:
        is_right = functools.partial(model_is_right, load(args.checkpoint, args.f16), tokenizer)
    texts = Texts(random.Random(f"recall {args.seed}"))
    print(f"{len(PLACES)} possible answers; each text has 4 to {args.facts} facts, of which one is asked for")
    written = []

    def report(what: str, questions: list[Question]) -> None:
        right = sum(is_right(question) for question in questions)
        print(f"{what:34} {right:4} of {len(questions):4} right, {right / len(questions):6.1%}", flush=True)
        written.extend(json.dumps(vars(question)) + "\n" for question in questions)

    for nearest, farthest in BINS:
        count = args.count if farthest <= 256 else args.count // 2
        questions = [ask(texts, tokenizer, nearest, farthest, args.facts) for _ in range(count)]
        report(f"{nearest} to {farthest} tokens", questions)
    report("in a chat, any turn before", [ask_in_chat(texts.rng, args.facts) for _ in range(args.count // 2)])
    report("never told: \"I do not know.\"", [ask_strange(texts, args.facts) for _ in range(args.count // 2)])
    if args.questions:
        args.questions.write_text("".join(written), encoding="utf-8")


if __name__ == "__main__":
    main()
