#pragma once

#include <atomic>
#include <functional>
#include <map>
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
  std::vector<int> threads = {1, 2, 3};
  /// By the names of options: these values only. The others are tried with values of their own, or follow from a line's
  /// formats, so that each meets others.
  std::map<std::string, std::vector<int64_t>> options = {};
  std::optional<bool> rotate = {};
  bool all = false;              // every way, and every attention; not a choice in which all pairs meet
  const Fault* fault = nullptr;  // made in every run; the first failure ends it all
  const std::atomic<bool>* cancelled = nullptr;
};

constexpr size_t kShortestPrompt = 16;

/// One layout, pair of formats and rotation.
struct LayoutResult {
  CachePlan cache;            // its layout, formats, rotation and what decides which rows are read
  size_t ways = 0, same = 0;  // runs; those whose logits are the reference's, bit by bit
  std::vector<std::string> failures = {};
  OracleResult oracle = {};       // of the reference run
  bool shares_reference = false;  // with a line before
  double kl = 0;                  // of its last logits from those of contiguous f32
  bool ok() const { return failures.empty() && same == ways; }
};

struct LayoutProgress {
  std::function<void(size_t done, size_t total)> on_run;  // after each
  std::function<void(const LayoutResult&)> on_result;
};

/// Runs the prompt in every layout and pair of formats, in many ways. All runs that read the same bytes, rotated alike,
/// must give the bits of a plain reference run, in chunks of 512, by one thread, alone: contiguous, or in the layout
/// itself where it has rows of its own. Each reference run is held against the float64
/// oracle. Whether all held; false, with no more results, where it was cancelled.
bool check_layouts(const ModelFile& file, const LayoutChecks& checks, const LayoutProgress& progress);

/// A prompt of ids of its own, the same for a vocabulary.
std::vector<int32_t> made_prompt(size_t tokens, size_t vocabulary);

}  // namespace contexture
