#pragma once

#include <CLI/CLI.hpp>

#include "contexture/contexture.h"
#include "files/metadata.h"

namespace contexture::cli {

/// Flags of every subcommand that makes text: how tokens are chosen, and when to stop.
class SamplingFlags {
 public:
  void add_to(CLI::App& command);
  /// As given; temperature, top-k and top-p that were not given as the model's makers advise
  /// (general.sampling.temp, .top_k, .top_p), where they do; without --seed, with a random one.
  GenerateOptions options(const Metadata& metadata) const;
  bool has_seed() const { return seed_->count() > 0; }

 private:
  GenerateOptions given_;
  int64_t predict_ = 512, seed_given_ = -1;
  CLI::Option *temperature_ = nullptr, *top_k_ = nullptr, *top_p_ = nullptr, *seed_ = nullptr;
};

}  // namespace contexture::cli
