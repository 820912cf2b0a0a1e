#include "model/workspace.h"

#include <algorithm>

namespace contexture {
namespace {

size_t widest_input(const ModelConfig& c) {
  return std::max({c.dim, c.heads * c.head_dim, c.ffn_dim});
}

}  // namespace

ExpertScratch::ExpertScratch(const ModelConfig& c, size_t tokens)
    : scores(tokens * c.experts),
      choices(tokens * c.experts_used),
      rows(c.experts ? tokens : 0),
      in(c.experts ? tokens * c.dim : 0),
      out(c.experts ? tokens * c.dim : 0) {}

size_t ExpertScratch::bytes_for(const ModelConfig& c, size_t tokens) {
  if (c.experts == 0) return 0;
  return AlignedArray<float>::bytes_for(tokens * c.experts) + AlignedArray<Choice>::bytes_for(tokens * c.experts_used) +
         AlignedArray<size_t>::bytes_for(tokens) + 2 * AlignedArray<float>::bytes_for(tokens * c.dim);
}

Workspace::Workspace(const ModelConfig& c, const WorkspaceSize& s)
    : size(s),
      hidden(s.tokens * c.dim),
      normed(s.tokens * c.dim),
      q(s.tokens * c.heads * c.head_dim),
      k(s.tokens * c.kv_heads * c.head_dim),
      v(s.tokens * c.kv_heads * c.head_dim),
      attended(s.tokens * c.heads * c.head_dim),
      projected(s.tokens * c.dim),
      gate(s.tokens * c.ffn_dim),
      up(s.tokens * c.ffn_dim),
      rope(c.ropes.size() * s.tokens * c.rope().dim),
      logits(s.logit_rows * c.vocabulary),
      slots(s.tokens),
      damaged(s.tokens),
      experts(c, s.tokens),
      matmul(s.tokens, widest_input(c)),
      attention(c.attention_shape(), s.threads, s.context) {
  spans.reserve(s.sequences * s.spans);
  sequences.reserve(s.sequences);
}

size_t Workspace::bytes_for(const ModelConfig& c, const WorkspaceSize& s) {
  size_t bytes = 0;
  for (const size_t floats : {c.dim, c.dim, c.heads * c.head_dim, c.kv_heads * c.head_dim, c.kv_heads * c.head_dim,
                              c.heads * c.head_dim, c.dim, c.ffn_dim, c.ffn_dim, c.ropes.size() * c.rope().dim}) {
    bytes += AlignedArray<float>::bytes_for(s.tokens * floats);
  }
  bytes += AlignedArray<float>::bytes_for(s.logit_rows * c.vocabulary);
  bytes += AlignedArray<Slot>::bytes_for(s.tokens);
  bytes += AlignedArray<uint8_t>::bytes_for(s.tokens);
  bytes += ExpertScratch::bytes_for(c, s.tokens);
  bytes += MatmulScratch::bytes_for(s.tokens, widest_input(c));
  bytes += AttentionScratch::bytes_for(c.attention_shape(), s.threads, s.context);
  bytes += s.sequences * s.spans * sizeof(TokenSpan) + s.sequences * sizeof(AttentionQueries);
  return bytes;
}

}  // namespace contexture
