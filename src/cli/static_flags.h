#pragma once

#include "cli/command.h"
#include "engine/static_model.h"

namespace contexture::cli {

/// Flags of the commands that run what `compile` wrote in place of a model.
struct StaticFlags {
  std::string directory;
  std::string kv_updater = "smart-mask", mode, backend = "reference";

  /// After ModelFlags and CacheFlags: what says how a model is held says nothing about a compiled one, and is refused
  /// beside --context-dir.
  void add_to(CLI::App& command);
  bool given() const { return !directory.empty(); }
  StaticLoadOptions options(const std::string& tokenizer, int threads) const;
};

}  // namespace contexture::cli
