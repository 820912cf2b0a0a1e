#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace contexture {

/// How the context is held: K and V of every token that a text has had so far.
struct CacheOptions {
  std::string layout = "paged";  ///< or "contiguous", "mixed"
  std::string k_format = "f16";  ///< f32, f16, bf16, q8_0, q4_0...
  std::string v_format = "f16";
  std::optional<bool> rotate = {};  ///< K and V before they are stored, against outliers; nothing said: where it helps
  /// What the layout has of its own: {"page_tokens", "32"} and {"pool_tokens", "4096"} (of all texts together; not
  /// said: enough for each to fill its context) of a paged one, {"hot_tokens", "256"} and {"cold_k_format", "q4_0"} of
  /// a mixed one. `contexture run --help` lists them all.
  std::vector<std::pair<std::string, std::string>> layout_options = {};
};

/// What an engine is made for. All of its memory is taken when it is made, but for swap_bytes.
struct EngineOptions {
  size_t context = 0;  ///< tokens of a text, prompt and answer; 0: what the model was made for, at most 4,096, or what
                       ///< `memory` allows where that is given
  size_t memory = 0;   ///< bytes of weights, cache and everything else together, at most; 0: no bound
  size_t sequences = 4;  ///< texts that run at once; others wait
  CacheOptions cache = {};
  int threads = 0;               ///< 0: one a physical core
  size_t step_tokens = 512;      ///< of prompts that go through the model together, at most
  size_t step_milliseconds = 0;  ///< that a step may take, so that no text waits longer for its next token while
                                 ///< others' prompts are read; 0: as long as step_tokens take
  size_t swap_bytes = 0;  ///< of memory for contexts of texts that must make room, where that is sooner than to run
                          ///< their tokens again
  size_t waiting = 1024;  ///< requests that may be there at once beside `sequences` of them; more are refused as busy
};

/// The bytes of an engine, to the last one, known before it is made.
struct Plan {
  size_t context = 0;          ///< tokens of a text
  size_t sequences = 0;        ///< at once
  size_t weights_bytes = 0;    ///< there once, for all engines of a model
  size_t cache_bytes = 0;      ///< K and V, and the books about them
  size_t workspace_bytes = 0;  ///< what a step computes with
  size_t swap_bytes = 0;
  std::string cache = {};  ///< how the context is held, for people
  size_t total_bytes() const { return weights_bytes + cache_bytes + workspace_bytes + swap_bytes; }
};

}  // namespace contexture
