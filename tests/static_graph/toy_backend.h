#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "contexture/graph_backend.h"

namespace contexture {

/// A model that is no model: every number is a hash of what a transformer's would depend on, and attention a sum of
/// hashes over the tokens that the mask shows, whose order does not matter. A wrong byte anywhere in the cache, a wrong
/// position, a mask too wide or too narrow change every logit after it.
struct ToyModel {
  uint32_t layers = 3, heads = 2, head_dim = 4, hidden = 8, vocabulary = 16;
  uint32_t context = 64, chunk = 8;
  uint32_t shards = 1;
  bool per_head = true, has_prefill = true, has_decode = true;
  bool wide_kv = false;  ///< 16 bits
  uint32_t fault = 0;    ///< 1: the last shard's hidden_in has another scale; 2: a layer is left out

  /// What the toy backend makes a context of.
  std::vector<std::byte> shard(uint32_t index) const;
};

/// The logits after each token, as a list of tokens and no cache makes them: (tokens, vocabulary), dequantised.
std::vector<std::vector<float>> toy_logits(const ToyModel& model, std::span<const int32_t> tokens);
/// K (or V) of a head as the toy stores it, dequantised: (tokens, head_dim).
std::vector<float> toy_kv(const ToyModel& model, std::span<const int32_t> tokens, bool is_v, uint32_t layer,
                          uint32_t head);

const cxg_backend& toy_backend();

}  // namespace contexture
