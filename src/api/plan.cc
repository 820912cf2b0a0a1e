#include <algorithm>

#include "api/model_impl.h"
#include "base/error.h"
#include "cache/layout.h"
#include "engine/conversation.h"
#include "engine/policy.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// Rows of logits beside those of texts that decode: a text that is scored wants one for every token.
constexpr size_t kRowsToScore = 32;

Format format_named(const std::string& name) {
  const std::optional<Format> format = format_from_name(name);
  if (!format) fail("unknown format '{}'; a cache is {}", printable(name), kv_format_names());
  return *format;
}

RunOptions run_options(const EngineOptions& options) {
  RunOptions run;
  run.cache.layout = options.cache.layout;
  run.cache.shape.k_format = format_named(options.cache.k_format);
  run.cache.shape.v_format = format_named(options.cache.v_format);
  run.cache.rotate = options.cache.rotate;
  run.cache.sequences = std::max<size_t>(1, options.sequences);
  run.cache.context = options.context;
  for (const auto& [name, value] : options.cache.layout_options) set_option(run.cache, name, value);
  run.cache.resumable = true;  // sessions may go on in a longer context
  run.threads = options.threads > 0 ? options.threads : physical_cores();
  run.chunk =
      std::max(options.step_tokens, run.cache.sequences + kLeastPart);  // a token of each, and the oldest's part
  run.logit_rows = run.cache.sequences + kRowsToScore;
  run.swap_bytes = options.swap_bytes;
  return run;
}

}  // namespace

MemoryPlan memory_plan(const Model::Impl& model, const EngineOptions& options) {
  RunOptions run = run_options(options);
  const ModelFile& file = model.opened.file;
  if (options.memory > 0) {
    const size_t most = options.context > 0 ? options.context : model.config.context;
    run.cache.context = std::min(most, longest_context(file, run, options.memory));
    if (run.cache.context == 0) {
      fail_as(ErrorKind::invalid,
              "nothing of a context fits {} bytes beside the weights; allow more, or fewer sequences", options.memory);
    }
    if (run.cache.context < options.context) {
      fail("{} tokens of context do not fit {} bytes, {} do; allow more memory or ask for a shorter context",
           options.context, options.memory, run.cache.context);
    }
  } else if (run.cache.context == 0) {
    run.cache.context = default_chat_context(model.config);
  }
  return plan_memory(file, run);
}

Plan shown(const MemoryPlan& plan) {
  return {.context = plan.cache.context,
          .sequences = plan.cache.sequences,
          .weights_bytes = plan.weights_bytes,
          .cache_bytes = plan.cache_bytes,
          .workspace_bytes = plan.workspace_bytes,
          .swap_bytes = plan.swap_bytes,
          .cache = describe(plan.cache)};
}

}  // namespace contexture
