#pragma once

#include <CLI/CLI.hpp>
#include <map>
#include <string_view>
#include <vector>

#include "engine/generate_options.h"
#include "files/metadata.h"
#include "sampling/fields.h"

namespace contexture::cli {

/// Flags of every subcommand that makes text: how tokens are chosen (sampling_fields), and when to stop.
class SamplingFlags {
 public:
  void add_to(CLI::App& command);
  /// As given; temperature, top-k and top-p that were not given as the model's makers advise
  /// (general.sampling.temp, .top_k, .top_p), where they do; without --seed, with a random one.
  GenerateOptions options(const Metadata& metadata) const;
  bool has_seed() const { return seed_->count() > 0; }

 private:
  CLI::Option* add_number(CLI::App& command, const SamplingField& field);
  void refuse_what_mirostat_replaces() const;

  GenerateOptions given_;
  int64_t predict_ = 512, seed_given_ = -1;
  std::vector<std::string> biases_, given_breakers_;
  std::map<std::string_view, CLI::Option*> numbers_;  // by SamplingField::name
  CLI::Option *seed_ = nullptr, *breakers_ = nullptr;
};

}  // namespace contexture::cli
