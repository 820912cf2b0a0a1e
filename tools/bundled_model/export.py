#!/usr/bin/env python3
"""Write a checkpoint and its tokenizer as one GGUF file: F16 matrices, F32 norms.

    export.py --checkpoint model.pt --vocab tok.vocab --out stories-1m.gguf

GGUF version 3, little endian: magic, version, counts; metadata as key, type, value; for each tensor its name, dimensions
(innermost first), type and offset; then the data, every tensor at a multiple of the alignment. Lengths are 64 bits.
"""
import argparse
import struct
from pathlib import Path

import numpy as np
import torch

from model import Llama, Shape, load
from tokens import BOS, EOS, TURNS

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # GGUF value types
TENSOR_F32, TENSOR_F16 = 0, 1
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # kinds of tokens
CHAT = """\
{{ bos_token }}{% for message in messages %}\
{% if message['role'] == 'assistant' %}<|assistant|>{% else %}<|user|>{% endif %}{{ message['content'] }}<|end|>\
{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"""  # what a system message says, the user says
SCALARS = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}


def string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def scalar(kind: int, value) -> bytes:
    return string(value) if kind == STRING else struct.pack(SCALARS[kind], value)


def entry(key: str, kind: int, value) -> bytes:
    """One key and its value; a list becomes an array of that kind."""
    if isinstance(value, list):
        return string(key) + struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(scalar(kind, v) for v in value)
    return string(key) + struct.pack("<I", kind) + scalar(kind, value)


def read_vocab(path: Path) -> tuple[list[str], list[float], list[int]]:
    """Pieces, scores and kinds out of the .vocab file that spm_train writes beside its model."""
    tokens, scores, kinds = [], [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        piece, _, score = line.rpartition("\t")
        tokens.append(piece)
        scores.append(float(score) + 0.0)  # the first rank is written -0
        is_byte = len(piece) == 6 and piece.startswith("<0x")
        is_control = piece in ("<s>", "</s>", *TURNS)
        kinds.append(BYTE if is_byte else CONTROL if is_control else UNKNOWN if piece == "<unk>" else NORMAL)
    return tokens, scores, kinds


def metadata(shape: Shape, vocab: Path) -> list[bytes]:
    tokens, scores, kinds = read_vocab(vocab)
    assert len(tokens) == shape.vocab, f"{vocab} has {len(tokens)} pieces, the model {shape.vocab}"
    return [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, "contexture-stories-1m"),
        entry("general.description", STRING, "Tells tiny English stories and remembers where things are."),
        entry("general.license", STRING, "Apache-2.0"),
        entry("general.alignment", U32, ALIGNMENT),
        entry("general.file_type", U32, 1),  # mostly F16
        entry("llama.block_count", U32, shape.layers),
        entry("llama.context_length", U32, shape.window),
        entry("llama.embedding_length", U32, shape.dim),
        entry("llama.feed_forward_length", U32, shape.ffn),
        entry("llama.attention.head_count", U32, shape.heads),
        entry("llama.attention.head_count_kv", U32, shape.kv_heads),
        entry("llama.attention.key_length", U32, shape.head_dim),
        entry("llama.attention.value_length", U32, shape.head_dim),
        entry("llama.attention.layer_norm_rms_epsilon", F32, shape.eps),
        entry("llama.rope.dimension_count", U32, shape.head_dim),
        entry("llama.rope.freq_base", F32, shape.theta),
        entry("llama.vocab_size", U32, shape.vocab),
        entry("tokenizer.ggml.model", STRING, "llama"),
        entry("tokenizer.ggml.pre", STRING, "default"),
        entry("tokenizer.ggml.tokens", STRING, tokens),
        entry("tokenizer.ggml.scores", F32, scores),
        entry("tokenizer.ggml.token_type", I32, kinds),
        entry("tokenizer.ggml.bos_token_id", U32, BOS),
        entry("tokenizer.ggml.eos_token_id", U32, EOS),
        entry("tokenizer.ggml.eot_token_id", U32, TURNS["<|end|>"]),
        entry("tokenizer.ggml.unknown_token_id", U32, 0),
        entry("tokenizer.ggml.add_bos_token", BOOL, True),
        entry("tokenizer.ggml.add_eos_token", BOOL, False),
        entry("tokenizer.ggml.add_space_prefix", BOOL, True),
        entry("tokenizer.chat_template", STRING, CHAT),
    ]


def tensors(model: Llama) -> dict[str, torch.Tensor]:
    """The weights under their GGUF names."""
    named = {"token_embd.weight": model.token_embd, "output_norm.weight": model.output_norm}
    for i, block in enumerate(model.blocks):
        named.update({f"blk.{i}.{name}.weight": weight for name, weight in block.named_parameters()})
    return {name: weight.detach().cpu() for name, weight in named.items()}


def padding(size: int) -> bytes:
    return bytes(-size % ALIGNMENT)


def write_gguf(path: Path, entries: list[bytes], weights: dict[str, torch.Tensor]) -> None:
    header = struct.pack("<4sIQQ", b"GGUF", 3, len(weights), len(entries)) + b"".join(entries)
    data = b""
    for name, weight in weights.items():
        kind, dtype = (TENSOR_F32, "<f4") if weight.dim() == 1 else (TENSOR_F16, "<f2")
        header += string(name) + struct.pack("<I", weight.dim())
        header += b"".join(struct.pack("<Q", size) for size in reversed(weight.shape)) + struct.pack("<IQ", kind, len(data))
        data += np.ascontiguousarray(weight.numpy()).astype(dtype).tobytes()
        data += padding(len(data))
    path.write_bytes(header + padding(len(header)) + data)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="what train.py wrote")
    parser.add_argument("--vocab", type=Path, required=True, help="the .vocab file that spm_train wrote")
    parser.add_argument("--out", type=Path, required=True, help="GGUF file to write")
    args = parser.parse_args()
    model = load(args.checkpoint)
    write_gguf(args.out, metadata(model.shape, args.vocab), tensors(model))
    print(f"{args.out}: {args.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
