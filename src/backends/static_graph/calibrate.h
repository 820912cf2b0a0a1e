#pragma once

#include <atomic>
#include <functional>
#include <span>

#include "backends/static_graph/build.h"
#include "backends/static_graph/constant_data.h"

namespace contexture {

struct Calibration {
  std::span<const int32_t> tokens;
  size_t context = 512;
  std::function<void(size_t done, size_t total)> progress = {};
  const std::atomic<bool>* cancelled = nullptr;
};

/// Runs a text through the float graphs, as many tokens at once as the context holds, and notes the smallest and
/// largest value of every tensor: each token is seen once (the last window overlaps the one before where the text does
/// not fill it). Layer by layer, so that the weights of one layer are in memory. Throws Error: no tokens, numbers that
/// are not finite, cancelled.
Ranges calibrate(const ModelFile& file, const ModelConfig& config, const ConstantData& data,
                 const Calibration& calibration, ThreadPool& pool);

}  // namespace contexture
