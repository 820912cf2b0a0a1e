#!/usr/bin/python3
"""Computes the needle model and writes it as GGUF.

    make.py OUT.gguf

README.md in this folder explains the construction; the sections below follow it. Nothing is trained and nothing is
random: the same bytes come out every time. What is claimed of the model is computed here from the weights as they are
stored, and nothing is written if it does not hold.
"""
import string
import struct
import sys
from pathlib import Path

import numpy as np

CONTEXT = 1 << 18  # positions for which everything below is proved
CODE = 32          # channels of a token's code
CURRENT = slice(0, CODE)          # channels of the hidden state: the code of the token itself,
PREVIOUS = slice(CODE, 2 * CODE)  # the code of the token before it, 3 times as loud,
CONSTANT = 2 * CODE               # and a channel that is CONSTANT_VALUE in every token
DIM = 3 * CODE
CONSTANT_VALUE = 8.0  # makes the mean square of an embedding (32 · 1 + 8²) / 96 = 1, exactly
HEAD = 64             # channels of a head: 16 pairs that rotate, then 32 channels that do not
PAIRS = 16
CONTENT = slice(2 * PAIRS, HEAD)
FFN = 32       # the feed-forward is zero; this is the narrowest that block formats can hold
EPSILON = 1e-12  # of the norms; 1 + epsilon is 1 in float32
STILL = 1e30     # divisor of the rotation of channels that shall not rotate

# --- Tokens -------------------------------------------------------------------------------------------------------

LETTERS = string.ascii_lowercase + string.ascii_uppercase
SPACE = "\u2581"
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6  # kinds of tokens in GGUF


def vocabulary() -> tuple[list[str], list[float], list[int], dict[str, list[int]]]:
    """Pieces, their merge scores, their kinds, and the ids of keys, values and fillers.

    Every word with the space before it is one token: fillers are letters (" a"), keys a small letter and a digit
    (" a0"), values a capital and a digit (" A0").
    """
    pieces = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL)]
    pieces += [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    pieces += [(character, -3.0, NORMAL) for character in SPACE + LETTERS + string.digits]
    roles = {}

    def add(role: str, words: list[str], score: float) -> None:
        roles[role] = list(range(len(pieces), len(pieces) + len(words)))
        pieces.extend((SPACE + word, score, NORMAL) for word in words)

    add("fillers", list(LETTERS), -1.0)  # merged first: a longer word begins with its letter
    add("keys", [a + d for a in string.ascii_lowercase for d in string.digits], -2.0)
    add("values", [a + d for a in string.ascii_uppercase for d in string.digits], -2.0)
    return *map(list, zip(*pieces)), roles


def codes(count: int) -> np.ndarray:
    """(count, 32) of ±1: token 32 a + b has (-1)^Tr(a x³ + b x) for the 32 elements x of the field GF(2^5)."""
    def times(a: int, b: int) -> int:
        product = 0
        for bit in range(5):
            product ^= (a << bit) * (b >> bit & 1)
        for bit in range(8, 4, -1):
            product ^= (0b100101 << (bit - 5)) * (product >> bit & 1)  # modulo x^5 + x^2 + 1
        return product

    def trace(a: int) -> int:
        total, power = 0, a
        for _ in range(5):
            total, power = total ^ power, times(power, power)
        return total  # 0 or 1

    assert count <= 1024
    cubes = [times(x, times(x, x)) for x in range(32)]
    return np.array([[(-1.0) ** trace(times(t >> 5, cubes[x]) ^ times(t & 31, x)) for x in range(32)]
                     for t in range(count)])


# --- Rotation -----------------------------------------------------------------------------------------------------

PRIME, ROOT = 262147, 19  # the first prime above CONTEXT; of its primitive roots below 100 the one that serves best


def divisors() -> np.ndarray:
    """(32) float32: pair i turns 1 / divisor radians a token, since the base of the rotation is 1.

    The rotating pairs turn ROOT^i / PRIME of a circle, backwards where that is less.
    """
    turns = [pow(ROOT, i + 1, PRIME) for i in range(PAIRS)]
    angles = [2 * np.pi * min(t, PRIME - t) / PRIME for t in turns]
    return np.array([1 / a for a in angles] + [STILL] * (HEAD // 2 - PAIRS), dtype=np.float32)


# --- Weights ------------------------------------------------------------------------------------------------------

def weights(code: np.ndarray, divisor: np.ndarray) -> dict[str, np.ndarray]:
    """All tensors under their GGUF names, a matrix as (outputs, inputs), rounded as the file holds them."""
    eye = np.eye(CODE)
    w = {"token_embd.weight": np.zeros((len(code), DIM)), "rope_freqs.weight": divisor,
         "output_norm.weight": np.zeros(DIM)}
    w["token_embd.weight"][:, CURRENT] = code
    w["token_embd.weight"][:, CONSTANT] = CONSTANT_VALUE
    w["output_norm.weight"][CURRENT] = 1  # the answer is read where codes of tokens are, with the embedding itself
    for layer in range(2):
        named = {"attn_norm": np.ones(DIM), "attn_q": np.zeros((HEAD, DIM)), "attn_k": np.zeros((HEAD, DIM)),
                 "attn_v": np.zeros((HEAD, DIM)), "attn_output": np.zeros((DIM, HEAD)), "ffn_norm": np.ones(DIM),
                 "ffn_gate": np.zeros((FFN, DIM)), "ffn_up": np.zeros((FFN, DIM)), "ffn_down": np.zeros((DIM, FFN))}
        w.update({f"blk.{layer}.{name}.weight": tensor for name, tensor in named.items()})

    # Layer 0 looks at the token before, by position alone. The norm leaves its input as it is. K: (8, 0) in every pair;
    # Q: the same turned back by one token's angle and 9 long. Score at distance d: 144 · mean of cos((d - 1) · angle).
    angles = 1 / divisor[:PAIRS].astype(np.float64)
    w["blk.0.attn_k.weight"][0:2 * PAIRS:2, CONSTANT] = 8 / CONSTANT_VALUE
    w["blk.0.attn_q.weight"][0:2 * PAIRS:2, CONSTANT] = 9 / CONSTANT_VALUE * np.cos(angles)
    w["blk.0.attn_q.weight"][1:2 * PAIRS:2, CONSTANT] = -9 / CONSTANT_VALUE * np.sin(angles)
    w["blk.0.attn_v.weight"][CONTENT, CURRENT] = eye
    w["blk.0.attn_output.weight"][PREVIOUS, CONTENT] = 3 * eye  # mean square now (96 + 32 · 9) / 96 = 4

    # Layer 1 looks for the token whose predecessor is this one. The norm halves its input. Q: 6 · current;
    # K: 6 · previous - 3 · current. Score: 144 where the predecessor is the same, give or take the codes' correlation.
    w["blk.1.attn_q.weight"][CONTENT, CURRENT] = 12 * eye
    w["blk.1.attn_k.weight"][CONTENT, PREVIOUS] = 4 * eye
    w["blk.1.attn_k.weight"][CONTENT, CURRENT] = -6 * eye
    w["blk.1.attn_v.weight"][CONTENT, CURRENT] = 2 * eye
    w["blk.1.attn_output.weight"][CURRENT, CONTENT] = 8 * eye  # eight times as loud as the asking token
    return {name: stored(tensor) for name, tensor in w.items()}


def stored(tensor: np.ndarray) -> np.ndarray:
    """Matrices are f16, vectors f32."""
    return tensor.astype("<f4" if tensor.ndim == 1 else "<f2")


# --- What is claimed, in float64 ----------------------------------------------------------------------------------

def norm(x: np.ndarray, weight: np.ndarray) -> np.ndarray:
    return x / np.sqrt(np.mean(x * x, axis=-1, keepdims=True) + EPSILON) * weight


def rotated(x: np.ndarray, positions: np.ndarray, divisor: np.ndarray) -> np.ndarray:
    """x (tokens, 64): neighbours turn together."""
    angle = positions[:, None] / divisor.astype(np.float64)
    out = np.empty_like(x)
    out[:, 0::2] = x[:, 0::2] * np.cos(angle) - x[:, 1::2] * np.sin(angle)
    out[:, 1::2] = x[:, 0::2] * np.sin(angle) + x[:, 1::2] * np.cos(angle)
    return out


def forward(w: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits (tokens, vocabulary). The feed-forward is zero and left out."""
    w = {name: tensor.astype(np.float64) for name, tensor in w.items()}
    divisor, positions = w["rope_freqs.weight"], np.arange(len(tokens))
    hidden = w["token_embd.weight"][tokens]
    for layer in range(2):
        m = {name: w[f"blk.{layer}.attn_{name}.weight"] for name in ("norm", "q", "k", "v", "output")}
        x = norm(hidden, m["norm"])
        scores = rotated(x @ m["q"].T, positions, divisor) @ rotated(x @ m["k"].T, positions, divisor).T / np.sqrt(HEAD)
        scores[np.triu_indices(len(tokens), 1)] = -np.inf
        p = np.exp(scores - scores.max(axis=1, keepdims=True))
        hidden = hidden + p / p.sum(axis=1, keepdims=True) @ (x @ m["v"].T) @ m["output"].T
    return norm(hidden, w["output_norm.weight"]) @ w["token_embd.weight"].T


def claim(what: str, holds: bool) -> None:
    print(what)
    if not holds:
        sys.exit("error: that is not enough")


def prove(w: dict[str, np.ndarray], code: np.ndarray, roles: dict[str, list[int]]) -> None:
    """Worst cases over all distances, keys, values and other tokens."""
    correlation = code @ code.T
    alike = np.abs(correlation - CODE * np.eye(len(code))).max()
    claim(f"codes of {len(code)} tokens: correlation at most {alike:.0f} of {CODE}", alike <= CODE / 4)

    q, k = (w[f"blk.0.attn_{n}.weight"][:, CONSTANT].astype(np.float64) * CONSTANT_VALUE for n in "qk")
    distances = np.arange(CONTEXT)
    keys = rotated(np.broadcast_to(k, (CONTEXT, HEAD)), -distances, w["rope_freqs.weight"])
    scores = keys @ q / np.sqrt(HEAD)  # of the token so far back
    rest = np.delete(scores, 1)
    elsewhere = np.exp(rest - scores[1]).sum()
    claim(f"layer 0: score {scores[1]:.1f} for the token before, at most {rest.max():.1f} for any other; "
          f"weight {elsewhere:.1e} on all the {CONTEXT - 1:,} others", elsewhere < 1e-12)

    # Scores of layer 1: 6 · asked · (6 · previous - 3 · current) / 8.
    asked = correlation[roles["keys"]]
    self_ = (np.array(roles["keys"])[:, None] == np.arange(len(code)))
    right = (36 * CODE - 18 * np.where(self_, -np.inf, asked).max(axis=1)) / 8
    wrong = (36 * np.where(self_, -np.inf, asked).max(axis=1) - 18 * asked.min(axis=1)) / 8
    first = 18 * CODE / 8  # the key at position 0, which is taken for its own predecessor
    gap = (right - np.maximum(wrong, first)).min()
    elsewhere = CONTEXT * np.exp(-gap)
    claim(f"layer 1: score {right.min():.1f} or more for the token after the key, at most {max(wrong.max(), first):.1f} "
          f"for any other; weight {elsewhere:.1e} or less on {CONTEXT:,} others", elsewhere < 1e-12)

    margin = np.inf  # of answer over every other token, in units of the output norm
    for key in roles["keys"]:
        logits = 8 * correlation[roles["values"]] + correlation[key]  # (values, vocabulary)
        right = logits[np.arange(len(logits)), roles["values"]].copy()
        logits[np.arange(len(logits)), roles["values"]] = -np.inf
        margin = min(margin, ((right - logits.max(axis=1)) / right).min())
    claim(f"output: the value's logit leads by {margin:.0%} of itself or more", margin > 0.5)


def check(w: dict[str, np.ndarray], roles: dict[str, list[int]], length: int) -> None:
    """Asks for every needle of a context in float64."""
    random = np.random.RandomState(length)
    tokens = random.choice(roles["fillers"], length)
    keys, values = (random.permutation(roles[role])[:60] for role in ("keys", "values"))
    places = np.append(0, 2 * random.choice(np.arange(1, length // 2), 59, replace=False))
    tokens[places], tokens[places + 1] = keys, values
    asked = np.append(tokens, keys)
    # All keys are asked in one pass: what precedes a later one is a key, and nothing asks for that.
    answers = forward(w, asked)[length:].argmax(axis=1)
    claim(f"{length} tokens: {(answers == values).sum()} of {len(keys)} needles found", (answers == values).all())


# --- The file -----------------------------------------------------------------------------------------------------

ALIGNMENT = 32
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9  # GGUF's types of values
PACKED = {U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}


def text(value: str) -> bytes:
    data = value.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def entry(key: str, kind: int, value) -> bytes:
    def one(v) -> bytes:
        return text(v) if kind == STRING else struct.pack(PACKED[kind], v)

    if isinstance(value, list):
        return text(key) + struct.pack("<IIQ", ARRAY, kind, len(value)) + b"".join(map(one, value))
    return text(key) + struct.pack("<I", kind) + one(value)


def metadata() -> list[bytes]:
    pieces, scores, kinds, roles = vocabulary()
    return [
        entry("general.architecture", STRING, "llama"),
        entry("general.name", STRING, "contexture-needle"),
        entry("general.description", STRING, "Says what followed the last word where it stood before. Computed, not trained."),
        entry("general.license", STRING, "Apache-2.0"),
        entry("general.alignment", U32, ALIGNMENT),
        entry("general.file_type", U32, 1),  # mostly F16
        entry("llama.block_count", U32, 2),
        entry("llama.context_length", U32, CONTEXT),
        entry("llama.embedding_length", U32, DIM),
        entry("llama.feed_forward_length", U32, FFN),
        entry("llama.attention.head_count", U32, 1),
        entry("llama.attention.head_count_kv", U32, 1),
        entry("llama.attention.key_length", U32, HEAD),
        entry("llama.attention.value_length", U32, HEAD),
        entry("llama.attention.layer_norm_rms_epsilon", F32, EPSILON),
        entry("llama.rope.dimension_count", U32, HEAD),
        entry("llama.rope.freq_base", F32, 1.0),
        entry("llama.vocab_size", U32, len(pieces)),
        entry("tokenizer.ggml.model", STRING, "llama"),
        entry("tokenizer.ggml.pre", STRING, "default"),
        entry("tokenizer.ggml.tokens", STRING, pieces),
        entry("tokenizer.ggml.scores", F32, scores),
        entry("tokenizer.ggml.token_type", I32, kinds),
        entry("tokenizer.ggml.bos_token_id", U32, 1),
        entry("tokenizer.ggml.eos_token_id", U32, 2),
        entry("tokenizer.ggml.unknown_token_id", U32, 0),
        entry("tokenizer.ggml.add_bos_token", BOOL, True),
        entry("tokenizer.ggml.add_eos_token", BOOL, False),
        entry("tokenizer.ggml.add_space_prefix", BOOL, True),
        *(entry(f"needle.{role}", I32, ids) for role, ids in roles.items()),
    ]


def gguf(entries: list[bytes], tensors: dict[str, np.ndarray]) -> bytes:
    """Version 3: counts; keys and values; each tensor's name, dimensions (innermost first), type, offset; the data."""
    def padding(size: int) -> bytes:
        return bytes(-size % ALIGNMENT)

    header = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(entries)) + b"".join(entries)
    data = b""
    for name, tensor in tensors.items():
        header += text(name) + struct.pack("<I", tensor.ndim) + b"".join(struct.pack("<Q", n) for n in tensor.shape[::-1])
        header += struct.pack("<IQ", 0 if tensor.dtype == np.float32 else 1, len(data))
        data += np.ascontiguousarray(tensor).tobytes()
        data += padding(len(data))
    return header + padding(len(header)) + data


def main() -> None:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        sys.exit(__doc__)
    pieces, _, _, roles = vocabulary()
    code = codes(len(pieces))
    w = weights(code, divisors())
    prove(w, code, roles)
    for length in (512, 2048):
        check(w, roles, length)
    file = gguf(metadata(), w)
    Path(sys.argv[1]).write_bytes(file)
    print(f"{sys.argv[1]}: {len(file):,} bytes")


if __name__ == "__main__":
    main()
