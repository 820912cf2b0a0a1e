#include "model/config.h"

#include <cmath>
#include <numbers>

namespace contexture {
namespace {

/// Llama 3.1's scaling of one frequency: wavelengths shorter than original_context / high_frequency_factor stay, those
/// longer than original_context / low_frequency_factor are divided, between them both are blended.
double llama3_scaled(double frequency, const RopeConfig& rope) {
  const double wavelength = 2 * std::numbers::pi / frequency;
  const double turns = rope.original_context / wavelength;  // that the pair makes over the original context
  if (turns > rope.high_frequency_factor) return frequency;
  if (turns < rope.low_frequency_factor) return frequency / rope.factor;
  const double kept = (turns - rope.low_frequency_factor) / (rope.high_frequency_factor - rope.low_frequency_factor);
  return (1 - kept) * frequency / rope.factor + kept * frequency;
}

}  // namespace

std::vector<double> rope_frequencies(const RopeConfig& rope, std::span<const float> divisors) {
  std::vector<double> frequencies(rope.dim / 2);
  for (size_t i = 0; i < frequencies.size(); ++i) {
    double f = std::pow(rope.base, -2 * static_cast<double>(i) / static_cast<double>(rope.dim));
    if (!divisors.empty()) f /= divisors[i];
    if (rope.scaling == RopeConfig::Scaling::linear) f /= rope.factor;
    if (rope.scaling == RopeConfig::Scaling::llama3) f = llama3_scaled(f, rope);
    frequencies[i] = f;
  }
  return frequencies;
}

AttentionShape ModelConfig::attention_shape(size_t layer) const {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = attention_scale,
          .softcap = attention_softcap,
          .window = each_layer.empty() ? 0 : each_layer[layer].window};
}

}  // namespace contexture
