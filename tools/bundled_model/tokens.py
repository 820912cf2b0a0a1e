"""Token ids of the training texts, exactly as an engine makes them, and fast: every word is looked up only once."""
import re
import subprocess
from pathlib import Path

BOS, EOS = 1, 2
TURNS = {"<|user|>": 3, "<|assistant|>": 4, "<|end|>": 5}  # as spm_train numbers --control_symbols


class Tokenizer:
    """SentencePiece's own encoder, one word at a time: no piece of its vocabulary reaches across a space."""

    def __init__(self, model: Path):
        self.model = model
        self.known: dict[str, list[int]] = {}

    def run(self, tool: str, options: list[str], text: str) -> list[str]:
        command = [tool, f"--model={self.model}", *options]
        return subprocess.run(command, input=text, check=True, capture_output=True, text=True).stdout.splitlines()

    def learn(self, words: list[str]) -> None:
        lines = self.run("spm_encode", ["--output_format=id"], "\n".join(words) + "\n")
        self.known.update(zip(words, (list(map(int, line.split())) for line in lines), strict=True))

    def encode(self, text: str) -> list[int]:
        """Control tokens are cut out; a text starts anew, with a space, at the beginning and after each of them."""
        parts = [part for part in re.split(r"(<\|\w+\|>)", text) if part]
        words = {word for part in parts if part not in TURNS for word in part.split(" ")}
        if unknown := sorted(words - self.known.keys()):
            self.learn(unknown)
        return [id for part in parts for id in
                ([TURNS[part]] if part in TURNS else (id for word in part.split(" ") for id in self.known[word]))]

    def decode(self, ids: list[int]) -> str:
        return "\n".join(self.run("spm_decode", ["--input_format=id"], " ".join(map(str, ids)) + "\n"))
