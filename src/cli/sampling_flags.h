#pragma once

#include <CLI/CLI.hpp>

#include "contexture/contexture.h"

namespace contexture::cli {

/// Flags of every subcommand that makes text: how tokens are chosen, and when to stop.
class SamplingFlags {
 public:
  void add_to(CLI::App& command);
  /// As given; without --seed, with a random one.
  GenerateOptions options() const;

 private:
  GenerateOptions given_;
  int64_t predict_ = 512;
  CLI::Option* seed_ = nullptr;
};

}  // namespace contexture::cli
