#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "files/gguf.h"
#include "files/model_file.h"
#include "kernels/attention.h"

// A trace is a GGUF file that holds attentions as they were computed: what each read, as it was stored, and what it
// made of it. docs/traces.md says the same for those who read it with other programs.
//
//   metadata   contexture.trace.version           1
//              contexture.trace.model             the model's name
//              contexture.trace.blk.L.heads, kv_heads, head_dim, scale, softcap, window      of every traced layer L
//
// Tensors of layer L, in pass S of the model (from 0), of the N-th sequence of that pass. Shapes are outermost first,
// as NumPy has them; GGUF itself lists them innermost first.
//
//   blk.L.step.S.seq.N.q           f32 (queries, heads, head_dim)
//                     .out         f32 (queries, heads, head_dim)
//                     .positions   i64 (queries): absolute
//                     .spans       i64 (spans, 3): of each span, its tokens, and which queries see it: those from the
//                                  second number's position on, before the third's
//                     .span.I.P.k  (tokens, kv_heads, head_dim) in the cache's format: f32, f16, bf16, q8_0, q4_0
//                     .span.I.P.v  likewise, in a format of its own
//                     .span.I.P.positions   i64 (tokens): absolute, evenly spaced, ascending
//
// Where a head is not whole blocks, its last block is short (tensor/kv_row.h), and no GGUF type says so: then K is
// .span.I.P.k.q8_0_bytes or .k.q4_0_bytes, i8 (tokens, kv_heads, bytes of a head's row), and V likewise. So it is
// always with fp8_e4m3, which GGUF has no type for.
//
// Spans are the parts of a context that differ in format, or in who sees them: P says which, of a mixed cache `sinks`,
// `cold` or `hot`; of any other cache there is one, `all`. A query at position p sees the tokens at positions ≤ p of
// the spans that it sees, and with a window w > 0 only those above p - w. Where the cache holds K and V rotated
// (Rotation), q, K, V and out are as attention had them: rotated.

namespace contexture {

constexpr int64_t kTraceVersion = 1;

/// Whether rows of this format are in a trace as bytes: no GGUF type describes them.
inline bool is_traced_in_bytes(Format format, size_t head_dim) {
  return head_dim % info(format).block != 0 || info(format).gguf_type == kNoGgufType;
}
inline constexpr const char* kTraceKeys = "contexture.trace.";
inline constexpr GgufUse kTraceFile{.with_integers = true, .remedy = "trace again (run --trace)"};

/// One attention of a trace.
struct TracedAttention {
  size_t step = 0, layer = 0, sequence = 0;
  AttentionShape shape;
  std::vector<float> q, out;
  std::vector<int64_t> positions;
  std::vector<TokenSpan> view;  // K and V point into the file

  AttentionQueries queries() { return {q.data(), out.data(), positions, view}; }
};

/// A trace opened: a stranger's file, of which every name, type, shape and number is checked.
class Trace {
 public:
  /// Throws Error, one line with what is wrong, where this is no trace or something in it is missing, of the wrong type
  /// or shape, absurd, contradicts another part, or belongs to no attention.
  explicit Trace(ModelFile file);

  const std::string& model() const { return model_; }
  size_t size() const { return places_.size(); }
  /// Ordered by step, layer and sequence.
  TracedAttention attention(size_t i) const;

 private:
  struct Place {
    size_t step, layer, sequence;
    auto operator<=>(const Place&) const = default;
  };
  class Reader;

  ModelFile file_;
  std::string model_;
  std::vector<Place> places_;
};

/// Throws Error as above, and where the file cannot be read.
Trace open_trace(const std::string& path);

}  // namespace contexture
