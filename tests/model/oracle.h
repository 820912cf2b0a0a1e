#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "files/model_file.h"

namespace contexture {

/// Logits after every token (tokens, vocabulary) of a Llama in float64: written from the papers, token by token, with a
/// plain softmax over all earlier tokens, sharing nothing with the engine but the decoding of stored weights. Against
/// block formats activations take the same int8 rounding as the engine's (quantise_row_plain).
std::vector<double> oracle_logits(const ModelFile& file, std::span<const int32_t> tokens);

}  // namespace contexture
