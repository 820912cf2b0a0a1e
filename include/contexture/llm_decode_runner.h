#pragma once

#include <cstddef>
#include <iostream>  // the programs that this is written for print without asking for it
#include <memory>
#include <string>

#include "contexture/export.h"

namespace contexture {

/// Where a compiled model lies and how it runs. The names are those of the multi-context runner that programs were
/// written for; what has a default need not be set.
struct LLMDecodeConfig {
  std::string ctx_dir;                    ///< a folder that `contexture compile` wrote
  std::string tokenizer_path;             ///< empty: the folder's own
  std::string backend_so = "reference";   ///< the name of a graph backend, or its library
  int max_gen_tokens = 100;               ///< of one answer
  int log_level = 0;                      ///< 0: quiet, 1: the main steps, 2: every shard's inputs and outputs
  bool use_multi_context = true;          ///< false: the folder must hold one shard
  int num_shards = 0;                     ///< that the folder must hold; 0: any number
  std::string kv_updater = "smart-mask";  ///< or "shift-pointer"
  std::string mode;                       ///< "kv", "hybrid" or "prefill"; empty: as compiled
  int threads = 0;                        ///< 0: one a physical core
};

/// Runs a compiled model for one user who may go on: each answer follows the last, at the positions behind it. Greedy.
/// Nothing here throws; one call at a time.
class CONTEXTURE_API LLMDecodeRunner {
 public:
  explicit LLMDecodeRunner(const LLMDecodeConfig& config);
  ~LLMDecodeRunner();
  LLMDecodeRunner(const LLMDecodeRunner&) = delete;
  LLMDecodeRunner& operator=(const LLMDecodeRunner&) = delete;

  /// Reads the folder, loads the backend and binds all buffers. False where that cannot be done.
  bool initialize();
  /// The text that follows `prompt`, which follows what was said before. False where it cannot be made; then nothing
  /// of it is kept. Where the context is full the text ends there (finish_reason).
  bool generate(const std::string& prompt, std::string& output);
  /// The next prompt begins anew.
  void reset();

  /// What went wrong last, in one line.
  const std::string& get_error() const;
  /// Of the last answer: "end", "length" or "context".
  const std::string& finish_reason() const;
  size_t context_tokens() const;  ///< held so far

 private:
  struct CONTEXTURE_LOCAL Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace contexture

/// The namespace that those programs use.
namespace llm_test {
using contexture::LLMDecodeConfig;
using contexture::LLMDecodeRunner;
}  // namespace llm_test
