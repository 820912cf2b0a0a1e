#include <fmt/format.h>

#include "cli/prefill_progress.h"
#include "cli/scored_text.h"
#include "verify/perplexity.h"

namespace contexture::cli {
namespace {

/// eval perplexity: how well a text is foretold.
struct EvalPerplexity {
  ModelFlags model;
  CacheFlags cache;
  ScoredTextFlags text;

  void run() const {
    catch_interrupts();
    const OpenedModel opened = model.open();
    const ScoredText scored = read_scored_text(text, opened, cache.context);
    Runtime runtime(opened.file, scored.fit(cache.options()));
    PrefillProgress progress("scoring the text");
    const std::optional<Perplexity> perplexity = measure_perplexity(
        scored.tokens, scored.windows, runtime,
        {.on_chunk = [&](size_t done, size_t total) { progress.show(done, total); }, .cancelled = &interrupted()});
    progress.clear();
    if (perplexity) print(*perplexity, runtime.plan().cache);
  }

  void print(const Perplexity& perplexity, const CachePlan& plan) const {
    if (model.json) {
      Json json = {{"perplexity", perplexity.value()},
                   {"tokens", perplexity.tokens()},
                   {"nats_per_token", perplexity.nats_per_token()},
                   {"standard_error", perplexity.standard_error()}};
      json.update(cache_as_json(plan));
      return print_json(json);
    }
    fmt::print("perplexity {:.4f} ± {:.4f}, {:.5f} nats a token over {} tokens\n", perplexity.value(),
               perplexity.standard_error(), perplexity.nats_per_token(), perplexity.tokens());
    fmt::print("cache: {}; {:.1f} bytes a token\n", describe(plan), bytes_per_token(plan));
  }
};

}  // namespace

void add_eval_perplexity(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("perplexity", "how well a text is foretold");
  command->footer(
      "Perplexity is exp of the mean of -log p(token | the tokens before it in its window), natural logarithms summed "
      "in\nfloat64. Windows do not overlap; each begins with the model's begin token, if it has one, in place of the "
      "window's first\ntoken. Every token after the first is scored.");
  auto self = std::make_shared<EvalPerplexity>();
  self->model.add_to(*command);
  self->cache.add_to(*command);
  self->text.add_to(*command);
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
