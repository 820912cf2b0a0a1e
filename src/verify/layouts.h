#pragma once

#include <atomic>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "verify/layout_run.h"
#include "verify/oracle_check.h"

namespace contexture {

/// What `verify layouts` is asked for.
struct LayoutChecks {
  std::vector<int32_t> prompt;               // at least kShortestPrompt
  std::vector<std::string_view> layouts;     // of cache_layouts()
  std::vector<Format> k_formats, v_formats;  // of a cache
  std::vector<size_t> page_tokens = {8, 16, 32, 64, 128, 256};
  std::vector<int> threads = {1, 2, 3};
  // For all lines; nothing: they follow from a line's formats, so that each meets others.
  std::optional<size_t> hot_tokens = {}, sink_tokens = {};
  std::optional<Format> cold_k_format = {}, cold_v_format = {};
  std::optional<bool> rotate = {};
  bool all = false;              // every way, and every attention; not a choice in which all pairs meet
  const Fault* fault = nullptr;  // made in every run; the first failure ends it all
  const std::atomic<bool>* cancelled = nullptr;
};

constexpr size_t kShortestPrompt = 16;
/// Where mixed caches are among the layouts: a block of tokens becomes cold, and 64 queries read it so.
constexpr size_t shortest_mixed_prompt(size_t hot_tokens = 1, size_t sink_tokens = 0) {
  return hot_tokens + 63 + (sink_tokens / kTilePositions + 1) * kTilePositions;
}

/// One layout, pair of formats and rotation.
struct LayoutResult {
  CachePlan cache;            // its layout, formats and rotation
  size_t ways = 0, same = 0;  // runs; those whose logits are the reference's, bit by bit
  std::vector<std::string> failures = {};
  OracleResult oracle = {};  // of the reference run
  double kl = 0;             // of its last logits from those of contiguous f32
  bool ok() const { return failures.empty() && same == ways; }
};

struct LayoutProgress {
  std::function<void(size_t done, size_t total)> on_run;  // after each
  std::function<void(const LayoutResult&)> on_result;
};

/// Runs the prompt in every layout and pair of formats, in many ways. All runs that read the same bytes, contiguous and
/// paged ones, and mixed ones of equal boundaries and formats, rotated alike, must give the bits of a plain reference
/// run: contiguous or mixed, in chunks of 512, by one thread, alone. Each reference run is held against the float64
/// oracle. Whether all held; false, with no more results, where it was cancelled.
bool check_layouts(const ModelFile& file, const LayoutChecks& checks, const LayoutProgress& progress);

/// A prompt of ids of its own, the same for a vocabulary.
std::vector<int32_t> made_prompt(size_t tokens, size_t vocabulary);

}  // namespace contexture
