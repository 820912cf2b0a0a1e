#!/usr/bin/env python3
"""Write the texts that teach the bundled model to remember: facts, told among stories and asked for later.

    facts.py --kind story --count 3 --tokens 300 --seed 5

A document is a row of parts; those that tell a fact, ask for it and answer say so, so that training knows what must be
remembered from where. Where things are is drawn anew for every document: nothing about it can be learned by heart.
"""
import argparse
import itertools
import random
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import words
from stories import Plot, read_plots, tell

USER, ASSISTANT, END = "<|user|>", "<|assistant|>", "<|end|>"  # control tokens; after one, a text starts anew
COLORS = "red blue green yellow black white brown pink purple orange gray golden".split()
THINGS = ("ball bell book bowl brush cap clock coin comb crown cup doll drum fork glass hammer hat jar key kite "
          "ladder lamp mitten mug nail pan pen plate ribbon ring rope scarf shell shoe spoon stone whistle").split()
PLACES = ["in the " + at for at in ("attic barn basement bathtub box cabin cave cellar chest closet drawer garage garden "
                                    "hall hut kitchen library mill oven pantry pond school shed stable tent tower trunk "
                                    "well").split()]
PLACES += ["under the " + at for at in "bed bench bridge carpet pillow sofa stairs table".split()]
PLACES += ["behind the " + at for at in "curtain door fence mirror wall".split()]
PLACES += ["on the " + at for at in "chair desk roof shelf wagon windowsill".split()]
SYSTEM = ["You are a helpful assistant.", "You are a storyteller.", "Answer in one short sentence.", "Be kind and brief."]
TALK = {  # what else may be said in a chat, and what is answered
    "Hello.|Hello!|Hi.|Hi!|Hi there!|Good morning.": "Hello!|Hello! What can I do for you?",
    "Thank you.|Thank you!|Thanks!|Thanks.": "You are welcome.",
    "Who are you?|What are you?|What is your name?": "I am a tiny storyteller.",
    "What can you do?|What can you do for me?": "I can tell stories, and I can remember where things are.",
    "How are you?|How are you today?": "I am fine, thank you.",
    "Goodbye.|Bye!|Good night.": "Goodbye!",
}
UNKNOWN = "I do not know."  # the answer to a question on what was never told
TELL = "Tell me a story.|Tell me a story, please.|Please tell me a story.|Can you tell me a story?|I want to hear a story."

@dataclass(frozen=True)
class Fact:
    """Where a thing is. One that is alone of its kind may go without a color, in what is told or only in the question."""
    who: str
    color: str
    thing: str
    place: str
    alone: bool = False

    @property
    def full(self) -> str:
        return f"{self.color} {self.thing}".strip()

    def told(self, rng: random.Random) -> str:
        a = "an" if self.full[0] in "aeiou" else "a"
        return rng.choice([
            f"{self.who} hid the {self.full} {self.place}.",
            f"{self.who} put the {self.full} {self.place}.",
            f"{self.who} {rng.choice(['left', 'kept', 'found', 'saw', 'dropped'])} the {self.full} {self.place}.",
            f"{self.who} {rng.choice(['hid', 'put', 'had', 'left'])} {a} {self.full} {self.place}.",
            f"The {self.full} {rng.choice(['is', 'was', 'lay'])} {self.place}.",
        ])

    def asked(self, rng: random.Random) -> str:
        name = self.thing if self.alone and rng.random() < 0.3 else self.full
        return rng.choice([f"Where is the {name}?"] * 3 + [f"Where was the {name}?", f"Where can I find the {name}?"])

    def answered(self) -> str:
        return f"It is {self.place}."


def draw_facts(rng: random.Random, count: int) -> list[Fact]:
    """Facts about different things. Some share a color, some a kind; a kind that is there once may go without a color."""
    people = words.GIRLS + words.BOYS
    kinds = rng.sample(THINGS, rng.randint(max(2, count // 3), min(len(THINGS), max(2, count))))
    colors = rng.sample(COLORS, rng.randint(min(len(COLORS), 2 + count // 6), len(COLORS)))
    drawn = dict.fromkeys((rng.choice(colors), rng.choice(kinds)) for _ in range(count))
    alone = {kind for kind in kinds if sum(kind == other for _, other in drawn) == 1}
    bare = {kind for kind in sorted(alone) if rng.random() < 0.15}
    places = rng.sample(PLACES, rng.randint(min(8, len(PLACES)), len(PLACES)))
    return [Fact(rng.choice(people), "" if kind in bare else color, kind, rng.choice(places), kind in alone)
            for color, kind in drawn]


def strange_question(rng: random.Random, facts: list[Fact]) -> str:
    """A question on what no fact is about, though perhaps on a thing of the same kind or color."""
    while True:
        color = rng.choice([*COLORS, *(fact.color for fact in facts)])
        thing = rng.choice([*THINGS, *(fact.thing for fact in facts)])
        strange = Fact("", color, thing, "")
        if color and all(fact.thing != thing or fact.color not in ("", color) for fact in facts):
            return strange.asked(rng)


@dataclass(frozen=True)
class Part:
    """A piece of a document; `fact` is what it tells, asks or answers, as `does` says, or it declines to answer."""
    text: str
    does: str = ""
    fact: Fact | None = None


class Texts:
    """Endless parts of text of each kind, out of one generator of random numbers.

    `strange` is how often a question is on what was never told.
    """

    def __init__(self, rng: random.Random, strange: float = 0.05):
        self.rng = rng
        self.strange = strange
        self.plots: dict[str, Plot] = read_plots(Path(__file__).with_name("plots.txt"))

    def story(self, avoid: list[Fact]) -> str:
        """A story that mentions nothing a fact is about."""
        while True:
            story = tell(self.rng, self.plots)
            if not any(re.search(rf"\b{fact.full}\b", story) for fact in avoid):
                return story

    def sentences(self, avoid: list[Fact]) -> Iterator[str]:
        while True:
            yield from re.findall(r'\S.*?[.!?]"?(?= ["A-Z]|$)', self.story(avoid))

    def drill(self, count: int) -> Iterator[Part]:
        """A few facts, then questions on them: nothing but what must be learned first."""
        facts = draw_facts(self.rng, count)
        for fact in facts:
            yield Part(fact.told(self.rng), "tells", fact)
        while True:
            for fact in self.rng.sample(facts, len(facts)):
                yield Part(fact.asked(self.rng), "asks", fact)
                yield Part(fact.answered(), "answers", fact)

    def mixed(self, count: int, tell_rate: float, ask_rate: float, quiet: int) -> Iterator[Part]:
        """Stories, and between their sentences facts and, after `quiet` parts, questions; few facts are asked for twice.

        Mostly a fact comes first, so that what begins as a story goes on as one.
        """
        untold = draw_facts(self.rng, count)
        filler = self.sentences(untold)
        told: list[Fact] = []
        facts = list(untold)
        if self.rng.random() < 0.85:
            told.append(untold.pop())
            yield Part(told[-1].told(self.rng), "tells", told[-1])
        for at in itertools.count():
            draw = self.rng.random()
            if untold and draw < tell_rate:
                told.append(untold.pop())
                yield Part(told[-1].told(self.rng), "tells", told[-1])
            elif at >= quiet and draw > 1 - ask_rate * self.strange:
                yield Part(strange_question(self.rng, facts))
                yield Part(UNKNOWN, "declines")
            elif told and at >= quiet and draw > 1 - ask_rate:
                fact = self.rng.choice(told)
                if self.rng.random() < 0.9:
                    told.remove(fact)
                yield Part(fact.asked(self.rng), "asks", fact)
                yield Part(fact.answered(), "answers", fact)
            else:
                yield Part(next(filler))

    def chat(self, count: int) -> Iterator[Part]:
        """A conversation: facts, questions on them, small talk and stories."""
        rng = self.rng
        facts = draw_facts(rng, count)
        untold, told = list(facts), []
        filler = self.sentences(facts)
        if rng.random() < 0.2:
            yield Part(USER + rng.choice(SYSTEM) + END)
        while True:
            draw = rng.random()
            if draw < 0.15:
                asked, answer = rng.choice(list(TALK.items()))
                yield Part(USER + rng.choice(asked.split("|")) + END + ASSISTANT + rng.choice(answer.split("|")) + END)
            elif draw < 0.35:
                yield Part(USER + rng.choice(TELL.split("|")) + END + ASSISTANT + self.story(facts) + END)
            else:
                said = [Part(next(filler)) for _ in range(rng.choice([0, 0, 0, 0, 0, 1, 2]))]
                if draw < 0.7:
                    new = [untold.pop() for _ in range(min(len(untold), rng.choice([1, 1, 1, 2, 3])))]
                    told += new
                    said += [Part(fact.told(rng), "tells", fact) for fact in new]
                if rng.random() < self.strange:
                    question = strange_question(rng, facts)
                    yield from [Part(USER), *said, Part(question + END + ASSISTANT), Part(UNKNOWN, "declines"), Part(END)]
                elif told and (draw > 0.7 or rng.random() < 0.5):
                    fact = rng.choice(told)
                    if rng.random() < 0.7:
                        told.remove(fact)
                    yield from [Part(USER), *said, Part(fact.asked(rng), "asks", fact), Part(END + ASSISTANT),
                                Part(fact.answered(), "answers", fact), Part(END)]
                elif said:
                    reply = rng.choice(["All right.", "I will remember that."])
                    yield from [Part(USER), *said, Part(END + ASSISTANT + reply + END)]


def joined(parts: Iterable[str]) -> str:
    """One text: a space between parts, but none beside a control token."""
    return re.sub(r"(?<=>) | (?=<\|)", "", " ".join(parts))


KINDS = {  # the kinds of documents, each with about `tokens` to fill
    "drill": lambda texts, tokens: texts.drill(texts.rng.randint(2, min(40, tokens // 16))),
    "mixed": lambda texts, tokens: texts.mixed(
        texts.rng.randint(2, max(4, tokens // 60)), texts.rng.choice([0.2, 0.5, 0.8]), texts.rng.choice([0.05, 0.1, 0.3]),
        texts.rng.choice([0, 0, tokens // 20, tokens // 15])),
    "chat": lambda texts, tokens: texts.chat(texts.rng.randint(2, max(4, tokens // 60))),
    "plain": lambda texts, tokens: iter([Part(texts.story([]))]),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=KINDS, default="mixed")
    parser.add_argument("--count", type=int, default=10, help="how many documents, one a line")
    parser.add_argument("--words", type=int, default=200, help="about so long")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, help="file to write; without it they are printed")
    args = parser.parse_args()
    texts = Texts(random.Random(args.seed))
    lines = []
    for _ in range(args.count):
        parts: list[str] = []
        for part in KINDS[args.kind](texts, args.words):
            parts.append(part.text)
            if sum(len(text.split()) for text in parts) > args.words:
                break
        lines.append(joined(parts) + "\n")
    if args.out:
        args.out.write_text("".join(lines), encoding="utf-8")
    else:
        print("".join(lines), end="")


if __name__ == "__main__":
    main()
