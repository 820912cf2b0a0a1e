#pragma once

#include <vector>

#include "base/aligned.h"
#include "kernels/attention.h"
#include "kernels/matmul.h"
#include "model/config.h"
#include "model/step.h"

namespace contexture {

/// The largest step that a workspace serves.
struct WorkspaceSize {
  size_t tokens = 512;    // of a step
  size_t logit_rows = 1;  // of a step that want logits
  size_t sequences = 1;   // of a step
  size_t spans = 1;       // of a sequence (spans_of)
  size_t context = 0;     // tokens of a sequence
  int threads = 1;
};

/// What a layer of experts needs besides; empty for dense models.
struct ExpertScratch {
  struct Choice {
    size_t expert;
    float weight;
  };
  ExpertScratch(const ModelConfig& config, size_t tokens);
  static size_t bytes_for(const ModelConfig& config, size_t tokens);

  AlignedArray<float> scores;    // (tokens, experts)
  AlignedArray<Choice> choices;  // (tokens, experts_used), by ascending expert
  AlignedArray<size_t> rows;     // (tokens): those that chose the present expert
  AlignedArray<float> in, out;   // (tokens, dim): their hidden states, what the expert makes of them
};

/// Every intermediate of a forward pass, allocated once: nothing is allocated while tokens are made.
struct Workspace {
  Workspace(const ModelConfig& config, const WorkspaceSize& size);
  static size_t bytes_for(const ModelConfig& config, const WorkspaceSize& size);

  WorkspaceSize size;
  AlignedArray<float> hidden;     // (tokens, dim)
  AlignedArray<float> normed;     // (tokens, dim)
  AlignedArray<float> q;          // (tokens, heads, head_dim)
  AlignedArray<float> k, v;       // (tokens, kv_heads, head_dim)
  AlignedArray<float> attended;   // (tokens, heads, head_dim)
  AlignedArray<float> projected;  // (tokens, dim)
  AlignedArray<float> gate, up;   // (tokens, ffn_dim)
  AlignedArray<float> rope;       // (ropes, tokens, rope.dim / 2, 2): cos and sin
  AlignedArray<float> logits;     // (logit_rows, vocabulary)
  AlignedArray<Slot> slots;       // (tokens)
  AlignedArray<uint8_t> damaged;  // (tokens): 1 where a token's last hidden state is not a number
  ExpertScratch experts;
  MatmulScratch matmul;
  AttentionScratch attention;
  std::vector<TokenSpan> spans;             // of all sequences of the step
  std::vector<AttentionQueries> sequences;  // of the step
};

}  // namespace contexture
