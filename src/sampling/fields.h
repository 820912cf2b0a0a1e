#pragma once

#include <span>
#include <string>
#include <string_view>
#include <variant>

#include "contexture/sampling.h"

namespace contexture {

/// A number of Sampling, for whoever checks, parses or prints them all.
struct SamplingField {
  std::string_view name;   ///< "top-k"
  std::string_view flags;  ///< "--top-k"; llama.cpp's, where it has it
  std::variant<float Sampling::*, int32_t Sampling::*> member;
  double low, high;          ///< the range, both ends included
  std::string_view meaning;  ///< and where it is off
  bool cuts = false;         ///< it switches a filter on, whose place Mirostat takes
};

/// All but the seed, the breakers and the biases.
std::span<const SamplingField> sampling_fields();

double get(const Sampling& sampling, const SamplingField& field);

/// Throws Error for what is out of its range, names it and the range; NaN is in none.
void check_sampling(const Sampling& sampling);
/// Throws Error where a bias is for a token that a vocabulary of this size does not have.
void check_biases(const Sampling& sampling, size_t vocabulary);

/// In one line everything that decides the choice, so that two lines are equal where the choices are. To the bit.
std::string describe(const Sampling& sampling);

}  // namespace contexture
