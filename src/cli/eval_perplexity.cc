#include <fmt/format.h>

#include "cli/progress_line.h"
#include "cli/scored_text.h"
#include "cli/static_flags.h"
#include "verify/perplexity.h"
#include "verify/static_perplexity.h"

namespace contexture::cli {
namespace {

/// eval perplexity: how well a text is foretold.
struct EvalPerplexity {
  ModelFlags model;
  CacheFlags cache;
  ScoredTextFlags text;
  StaticFlags compiled;

  void run() const {
    catch_interrupts();
    if (compiled.given()) return run_compiled();
    const OpenedModel opened = model.open();
    const RunOptions options = cache.options(opened.file.metadata);
    const ScoredText scored = read_scored_text(text, opened, options.cache.context);
    Runtime runtime(opened.file, scored.fit(options));
    ProgressLine progress("scoring the text");
    const std::optional<Perplexity> perplexity = measure_perplexity(
        scored.tokens, scored.windows, runtime,
        {.on_chunk = [&](size_t done, size_t total) { progress.show(done, total); }, .cancelled = &interrupted()});
    progress.clear();
    if (!perplexity) return;
    const CachePlan& plan = runtime.plan().cache;
    print(*perplexity, cache_as_json(plan),
          fmt::format("cache: {}; {:.1f} bytes a token", describe(plan), bytes_per_token(plan)));
  }

  void run_compiled() const {
    StaticModel loaded(compiled.options(model.tokenizer, cache.threads));
    StaticRunner& runner = loaded.runner();
    const ScoredText scored = read_scored_text(text, loaded.tokenizer(), runner.shape().context, 0);
    ProgressLine progress("scoring the text");
    const std::optional<Perplexity> perplexity = measure_perplexity(
        scored.tokens, scored.windows, runner,
        {.on_chunk = [&](size_t done, size_t total) { progress.show(done, total); }, .cancelled = &interrupted()});
    progress.clear();
    if (!perplexity) return;
    const std::string& recipe = loaded.directory().manifest().recipe;
    const Json json = {{"context", scored.windows.tokens},
                       {"layout", "static"},
                       {"recipe", recipe},
                       {"kv_updater", name(runner.kv().update())},
                       {"mode", name(runner.mode())}};
    print(*perplexity, json,
          fmt::format("static graphs: {}, {} tokens, {}, mode {}", recipe, scored.windows.tokens,
                      name(runner.kv().update()), name(runner.mode())));
  }

  void print(const Perplexity& perplexity, const Json& how, const std::string& how_text) const {
    if (model.json) {
      Json json = {{"perplexity", perplexity.value()},
                   {"tokens", perplexity.tokens()},
                   {"nats_per_token", perplexity.nats_per_token()},
                   {"standard_error", nullptr}};
      if (const auto error = perplexity.standard_error()) json["standard_error"] = *error;
      json.update(how);
      return print_json(json);
    }
    const std::optional<double> error = perplexity.standard_error();
    fmt::print("perplexity {:.4f}{}, {:.5f} nats a token over {} token{}\n", perplexity.value(),
               error ? fmt::format(" ± {:.4f}", *error) : "", perplexity.nats_per_token(), perplexity.tokens(),
               perplexity.tokens() == 1 ? "" : "s");
    fmt::print("{}\n", how_text);
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
  self->compiled.add_to(*command);
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
