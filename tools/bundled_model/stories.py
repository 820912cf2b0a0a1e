"""Small English stories out of a grammar of our own.

plots.txt holds the sentences, words.py the vocabulary. A story draws its cast, its place and its objects once and every
sentence reads them from there, so that a name, a pronoun or a color never changes halfway. The same seed gives the same
stories.
"""
import random
import re
from dataclasses import dataclass, field
from pathlib import Path

import words

# Two characters never share a pronoun: "he" and "she" then always name one of them.
PRONOUNS = {
    "girl": dict(he="she", him="her", his="her", He="She", His="Her", self="herself"),
    "boy": dict(he="he", him="him", his="his", He="He", His="His", self="himself"),
}
INTRODUCTIONS = (".meet", ".noun", ".look")  # how a story may mention the friend for the first time
WORDS_IN_A_STORY = range(40, 105)  # 60 to 170 tokens of the bundled vocabulary


@dataclass
class Plot:
    """A plot: the records it draws, the words it fixes, and its beats, each a list of sentences to choose from."""
    name: str
    draws: list[str] = field(default_factory=list)
    lets: dict[str, str] = field(default_factory=dict)
    beats: list[list[str]] = field(default_factory=list)
    optional: set[int] = field(default_factory=set)  # the beats that may be left out

    def choose(self, rng: random.Random) -> list[str]:
        """One sentence for every beat; an empty one for a beat left out."""
        return ["" if i in self.optional and rng.random() < 0.5 else rng.choice(b) for i, b in enumerate(self.beats)]


def read_plots(path: Path) -> dict[str, Plot]:
    """Parse plots.txt: `== name: draws`, `let word = a|b`, beats apart by blank lines, `?` before an optional one."""
    plots: dict[str, Plot] = {}
    beat: list[str] | None = None
    for line in map(str.strip, path.read_text(encoding="utf-8").splitlines()):
        if line.startswith("#"):
            continue
        if line.startswith("== "):
            name, _, draws = line[3:].partition(":")
            plot = plots[name] = Plot(name, draws.split())
            beat = None
        elif line.startswith("let "):
            name, _, choices = line[4:].partition(" = ")
            plot.lets[name] = choices
        elif not line:
            beat = None
        elif line == "?":
            plot.optional.add(len(plot.beats))
        else:
            if beat is None:
                plot.beats.append(beat := [])
            beat.append(line)
    return plots


class Story:
    """One story in the making: the scope that `{...}` reads, and the random choices of `[...|...]`."""

    def __init__(self, rng: random.Random, plot: Plot):
        self.rng = rng
        self.scope: dict[str, dict[str, str]] = {}
        self.cast()
        for cls in ["place", *plot.draws]:
            self.draw(cls)
        for name, choices in plot.lets.items():
            self.scope[name] = {"name": self.rng.choice(choices.split("|"))}

    def cast(self) -> None:
        """A is whom the story is about, B the friend, C somebody older; animals keep company with animals."""
        sexes = ["girl", "boy"]
        self.rng.shuffle(sexes)
        a_is_child = self.rng.random() < 0.45
        b_is_child = self.rng.random() < (0.65 if a_is_child else 0.1)
        nouns = self.rng.sample(sorted(words.ANIMALS), 2)
        for who, sex, is_child, noun in zip("AB", sexes, (a_is_child, b_is_child), nouns):
            names = words.GIRLS if sex == "girl" else words.BOYS
            home, hands = ("a [small|little|white|cozy] house", "hands") if is_child else words.ANIMALS[noun]
            meet = "{A.his} [|good |best ]friend {B}"
            if not is_child:
                meet = f"[{meet}|{{B}} the {noun}|a {{B.trait}} {noun} named {{B}}]"
            self.scope[who] = dict(
                PRONOUNS[sex], name=self.rng.choice(names), noun=sex if is_child else noun, home=home, hands=hands,
                look=self.rng.choice(words.LOOKS), trait=self.rng.choice(words.TRAITS), meet=meet)
        elders = ["mother", "father", "grandma", "grandpa", "aunt", "uncle"]
        self.scope["C"] = {"name": "{A.his} " + self.rng.choice(elders)}

    def draw(self, cls: str) -> None:
        """Take one record of a class into the scope and settle its looks, so that they stay the same."""
        record = dict(self.rng.choice(words.CLASSES[cls]))
        if "look" in record:
            record["look"] = self.rng.choice(record["look"].split("|"))
            record["full"] = record["look"] + " " + record["name"]
        if "spots" in record:
            for i, spot in enumerate(self.rng.sample(record["spots"].split("|"), 3), 1):
                record[f"spot{i}"] = spot
        self.scope[cls] = record

    def expand(self, template: str) -> str:
        """Replace choices, innermost first, then names, until only text is left."""
        while True:
            text = re.sub(r"\[([^\[\]]*)\]", lambda m: self.rng.choice(m[1].split("|")), template)
            if text == template:
                text = re.sub(r"\{(\w+)(?:\.(\w+))?\}", lambda m: self.scope[m[1]][m[2] or "name"], template)
            if text == template:
                return text
            template = text


def polish(text: str) -> str:
    """Capitals at sentence starts, `an` before vowels, single spaces. After `!"` the template knows better."""
    text = re.sub(r"\s+", " ", text).strip()
    text = re.sub(r"\b([Aa])(?= [aeio])", r"\1n", text)
    return re.sub(r'(^|[.!?] "?|\." )([a-z])', lambda m: m[1] + m[2].upper(), text)


def tell(rng: random.Random, plots: dict[str, Plot]) -> str:
    """One story: an opening, the beats of a plot, and often a closing line."""
    names = [name for name in plots if name not in ("opening", "closing")]
    plot = plots[rng.choice(names)]
    while True:
        story = Story(rng, plot)
        beats = plots["opening"].choose(rng) + plot.choose(rng)
        if not beats[-1] or rng.random() < 0.3:
            beats += plots["closing"].choose(rng)
        template = " ".join(beats)
        met = re.search(r"\{B(\.\w+)?\}", template)
        if met and met[1] not in INTRODUCTIONS:  # some alternatives do without the friend: nobody then may mention one
            continue
        text = polish(story.expand(template))
        if len(text.split()) in WORDS_IN_A_STORY:
            return text
