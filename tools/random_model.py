#!/usr/bin/python3
"""Writes a random model of any family as GGUF, of a size at which another program can be held beside this one.

usage: random_model.py NAME OUT.gguf [--type f32|f16|q8_0] [--seed N]
       random_model.py --list

NAME is one of MODELS below. The files hold what published ones of the family hold and no key of our own, and no
vocabulary: token ids go in, logits come out. Weights are scaled so that every layer matters and scores spread; numbers
that a family gives (scales, caps, windows) are chosen so that leaving one out shows.
"""
import argparse
import struct
import sys

import numpy as np

# ffn: of each expert, where there are experts. base: of rotation. Windows are shorter than the few hundred tokens that
# are compared. The 27B Gemmas are known by their number of layers.
COMMON = dict(dim=512, layers=6, heads=8, kv_heads=2, head=64, ffn=1408, vocabulary=768, context=4096, base=10000.0,
              tied=False, epsilon=1e-5)
GEMMA = dict(head=96, ffn=1024, tied=True, epsilon=1e-6)
MODELS = {
    "llama": dict(family="llama"),
    "llama-3.1": dict(family="llama", base=500000.0, rope_freqs=True),
    "llama-odd-heads": dict(family="llama", heads=6, kv_heads=3, head=48, dim=288, ffn=800),
    "mixtral": dict(family="llama", experts=8, used=2, ffn=512),
    "qwen2": dict(family="qwen2", tied=True, base=1e6),
    "qwen3": dict(family="qwen3", head=96, base=1e6),
    "qwen3moe": dict(family="qwen3moe", experts=16, used=4, ffn=256, head=96, base=1e6),
    "smollm3": dict(family="smollm3", layers=9, tied=True, base=5e6),
    "granite": dict(family="granite"),
    "phi3": dict(family="phi3", kv_heads=8),
    "phi3-partial": dict(family="phi3", rotated=48, tied=True),
    "phi3-long": dict(family="phi3", original_context=64),
    "gemma": dict(family="gemma", kv_heads=1, **GEMMA),
    "gemma2": dict(family="gemma2", window=48, **GEMMA),
    "gemma2-27b": dict(family="gemma2", window=48, **{**GEMMA, "layers": 46, "dim": 256, "ffn": 512}),
    "gemma3": dict(family="gemma3", window=48, layers=13, base=1e6, linear=8.0, **GEMMA),
    "gemma3-27b": dict(family="gemma3", window=48, base=1e6, linear=8.0,
                       **{**GEMMA, "layers": 62, "dim": 256, "ffn": 512}),
}

F32, F16, Q8_0 = 0, 1, 8  # ggml_type


def text(value):
    return struct.pack("<Q", len(value)) + value.encode()


def pair(key, value):
    """A key with a value of the type that llama.cpp expects of it: u32, f32 or string."""
    if isinstance(value, str):
        return text(key) + struct.pack("<I", 8) + text(value)
    if isinstance(value, float):
        return text(key) + struct.pack("<If", 6, value)
    return text(key) + struct.pack("<II", 4, value)


def keys_of(m):
    family = m["family"]
    keys = {
        "block_count": m["layers"], "context_length": m["context"], "embedding_length": m["dim"],
        "feed_forward_length": m["ffn"], "attention.head_count": m["heads"],
        "attention.head_count_kv": m["kv_heads"], "attention.key_length": m["head"],
        "attention.value_length": m["head"], "attention.layer_norm_rms_epsilon": m["epsilon"],
        "rope.freq_base": m["base"], "rope.dimension_count": m.get("rotated", m["head"]),
        "vocab_size": m["vocabulary"],
    }
    if "experts" in m:
        keys |= {"expert_count": m["experts"], "expert_used_count": m["used"]}
    if family == "qwen3moe":
        keys |= {"feed_forward_length": 3 * m["ffn"], "expert_feed_forward_length": m["ffn"]}
    if family == "granite":
        keys |= {"embedding_scale": 12.0, "residual_scale": 0.22, "attention.scale": 0.05, "logit_scale": 3.0}
    if "original_context" in m:
        keys |= {"rope.scaling.original_context_length": m["original_context"], "rope.scaling.attn_factor": 1.2}
    if "window" in m:
        keys["attention.sliding_window"] = m["window"]
    if family == "gemma2":
        keys |= {"attn_logit_softcapping": 3.0, "final_logit_softcapping": 2.0}
    if "linear" in m:
        keys |= {"rope.scaling.type": "linear", "rope.scaling.factor": m["linear"]}
    head = {"general.architecture": family, "tokenizer.ggml.model": "no_vocab"}
    return head | {f"{family}.{key}": value for key, value in keys.items()}


def tensors_of(m):
    """(name, shape, mean, deviation); matrices have mean 0 and are stored in the model's type."""
    family, dim, head, ffn = m["family"], m["dim"], m["head"], m["ffn"]
    rows_q, rows_kv = m["heads"] * head, m["kv_heads"] * head

    def matrix(name, *shape, gain=1.0):
        return name + ".weight", shape, 0.0, gain * shape[-1] ** -0.5

    def norm(name, size):
        return name + ".weight", (size,), 1.0, 0.2

    yield matrix("token_embd", m["vocabulary"], dim)
    yield norm("output_norm", dim)
    if not m["tied"]:
        yield matrix("output", m["vocabulary"], dim)
    pairs = m.get("rotated", head) // 2
    if "rope_freqs" in m:
        yield "rope_freqs.weight", (pairs,), 4.0, 0.5
    if "original_context" in m:
        yield "rope_factors_long.weight", (pairs,), 5.0, 0.5
        yield "rope_factors_short.weight", (pairs,), 1.5, 0.1

    for layer in range(m["layers"]):
        b = f"blk.{layer}."
        yield norm(b + "attn_norm", dim)
        if family == "phi3":
            yield matrix(b + "attn_qkv", rows_q + 2 * rows_kv, dim, gain=1.5)
        else:
            yield matrix(b + "attn_q", rows_q, dim, gain=2)
            yield matrix(b + "attn_k", rows_kv, dim, gain=2)
            yield matrix(b + "attn_v", rows_kv, dim)
        if family == "qwen2":
            for name, rows in ("attn_q", rows_q), ("attn_k", rows_kv), ("attn_v", rows_kv):
                yield f"{b}{name}.bias", (rows,), 0.0, 0.7
        if family in ("qwen3", "qwen3moe", "gemma3"):
            yield norm(b + "attn_q_norm", head)
            yield norm(b + "attn_k_norm", head)
        yield matrix(b + "attn_output", dim, rows_q)
        yield norm(b + "ffn_norm", dim)
        if family in ("gemma2", "gemma3"):
            yield norm(b + "post_attention_norm", dim)
            yield norm(b + "post_ffw_norm", dim)
        if "experts" in m:
            yield b + "ffn_gate_inp.weight", (m["experts"], dim), 0.0, 2 * dim ** -0.5
            yield matrix(b + "ffn_gate_exps", m["experts"], ffn, dim)
            yield matrix(b + "ffn_up_exps", m["experts"], ffn, dim)
            yield matrix(b + "ffn_down_exps", m["experts"], dim, ffn)
        else:
            if family != "phi3":
                yield matrix(b + "ffn_gate", ffn, dim)
            yield matrix(b + "ffn_up", 2 * ffn if family == "phi3" else ffn, dim)
            yield matrix(b + "ffn_down", dim, ffn)


def stored_as(name, shape, kind):
    return F32 if len(shape) == 1 or "ffn_gate_inp" in name else kind


def size_of(shape, kind):
    count = int(np.prod(shape))
    return count * 4 if kind == F32 else count * 2 if kind == F16 else count // 32 * 34


def encoded(values, kind):
    if kind == F32:
        return values.astype("<f4").tobytes()
    if kind == F16:
        return values.astype("<f2").tobytes()
    blocks = values.reshape(-1, 32)
    scales = (np.abs(blocks).max(1, keepdims=True) / 127).astype("<f2")
    quants = np.rint(blocks / np.maximum(scales.astype(np.float32), 1e-20)).clip(-127, 127).astype(np.int8)
    return np.concatenate([scales.view(np.uint8), quants.view(np.uint8)], axis=1).tobytes()


def padding(size):
    return b"\0" * (-size % 32)


def write(name, path, kind, seed):
    m = COMMON | MODELS[name]
    keys, tensors = keys_of(m), list(tensors_of(m))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(keys))
    head += b"".join(pair(key, value) for key, value in keys.items())
    offset = 0
    for tensor, shape, _, _ in tensors:
        stored = stored_as(tensor, shape, kind)
        head += text(tensor) + struct.pack(f"<I{len(shape)}Q", len(shape), *reversed(shape))
        head += struct.pack("<IQ", stored, offset)
        offset += size_of(shape, stored) + len(padding(size_of(shape, stored)))
    random = np.random.default_rng(seed)
    with open(path, "wb") as out:
        out.write(head + padding(len(head)))
        for tensor, shape, mean, deviation in tensors:
            values = random.standard_normal(int(np.prod(shape)), np.float32) * np.float32(deviation) + np.float32(mean)
            data = encoded(values, stored_as(tensor, shape, kind))
            out.write(data + padding(len(data)))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=MODELS)
    parser.add_argument("out", nargs="?")
    parser.add_argument("--type", choices=["f32", "f16", "q8_0"], default="f32")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--list", action="store_true", help="print the names of the models")
    args = parser.parse_args()
    if args.list:
        print("\n".join(MODELS))
    elif args.out:
        write(args.name, args.out, dict(f32=F32, f16=F16, q8_0=Q8_0)[args.type], args.seed)
    else:
        parser.error("a name and a file are needed, or --list")


if __name__ == "__main__":
    sys.exit(main())
