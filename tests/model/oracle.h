#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "files/model_file.h"

namespace contexture {

/// Logits after every token (tokens, vocabulary) in float64, of the family that general.architecture names: written
/// from the papers and the reference programs' behaviour, token by token, with a plain softmax over all tokens seen,
/// sharing nothing with the engine but the decoding of stored weights. Against block formats activations take the same
/// int8 rounding as the engine's (quantise_row_plain).
///
/// `closest_choice`: where experts are chosen, the least lead that a chosen expert's router logit had over one not
/// chosen (infinity without experts). Where it is within rounding, float32 may rightly choose the other.
std::vector<double> oracle_logits(const ModelFile& file, std::span<const int32_t> tokens,
                                  double* closest_choice = nullptr);

}  // namespace contexture
