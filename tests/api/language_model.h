#pragma once

#include <string>

#include "contexture/contexture.h"
#include "engine/generate_options.h"

namespace contexture {

/// A model and an engine of its own, for tests of single texts.
class LanguageModel {
 public:
  explicit LanguageModel(const std::string& path, EngineOptions options = {})
      : model_(Model::open(path, {.threads = 2})), engine_(model_, with_threads(std::move(options))) {}

  static Request request(std::string_view prompt, const GenerateOptions& options) {
    return {.prompt = TextPrompt{.text = std::string(prompt)},
            .sampling = options.sampling,
            .limits = {.max_tokens = options.max_tokens, .stop = options.stop, .ignore_end = options.ignore_end},
            .resume = options.resume,
            .resumable = options.resumable,
            .alternatives = options.alternatives};
  }

  Generation generate(std::string_view prompt, const GenerateOptions& options = {},
                      const std::function<bool(const GeneratedToken&)>& on_token = {}) {
    return contexture::generate(engine_, request(prompt, options), on_token);
  }

  Engine& engine() { return engine_; }

 private:
  static EngineOptions with_threads(EngineOptions options) {
    if (options.threads == 0) options.threads = 2;
    return options;
  }

  Model model_;
  Engine engine_;
};

}  // namespace contexture
