#include "base/error.h"
#include "base/log.h"
#include "cli/other_spellings.h"
#include "cli/progress_line.h"
#include "cli/scored_text.h"
#include "verify/divergence.h"

namespace contexture::cli {
namespace {

/// What a text's predictions are held against: a cache, and perhaps another model.
struct Reference {
  std::string flags = "--cache contiguous --k-format f32 --v-format f32";
  ModelFlags model;  // no path: the same model
  CacheFlags cache;

  /// Throws CLI::ValidationError where they are no flags of a model or a cache.
  void parse(const std::string& text) {
    flags = text;
    model = {};
    cache = {};
    CLI::App app("", "--against");
    app.set_help_flag();
    model.add_to(app);
    cache.add_to(app);
    // They are one for both, or belong to what is printed.
    for (const char* other : {"--json", "--context"}) app.remove_option(app.get_option(other));
    try {
      std::vector<std::string> arguments = with_known_spellings(app, CLI::detail::split_up(text));
      std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
      app.parse(std::move(arguments));
    } catch (const CLI::ParseError& e) {
      throw CLI::ValidationError(
          "--against", fmt::format("{}; it takes -m and the flags of a cache, in quotes", printable(e.what(), 400)));
    }
    if (app.count("--model") == 0) model.model.clear();
  }
};

/// eval kl: how far a cache takes a model's predictions from a reference's.
struct EvalKl {
  ModelFlags model;
  CacheFlags cache;
  ScoredTextFlags text;
  Reference against;

  void run() const {
    catch_interrupts();
    const OpenedModel opened = model.open();
    std::optional<OpenedModel> other;
    if (!against.model.model.empty()) other = open_other(opened);
    const RunOptions options = cache.options(opened.file.metadata);
    const ScoredText scored = read_scored_text(text, opened, options.cache.context);
    Runtime runtime(opened.file, scored.fit(options));
    const ModelFile& held_against = other ? other->file : opened.file;
    Runtime reference(held_against, scored.fit(against.cache.options(held_against.metadata)));
    ProgressLine progress("scoring the text");
    const std::optional<Divergence> divergence = measure_divergence(
        scored.tokens, scored.windows, reference, runtime,
        {.on_chunk = [&](size_t done, size_t total) { progress.show(done, total); }, .cancelled = &interrupted()});
    progress.clear();
    if (divergence) print(*divergence, runtime.plan().cache, reference.plan().cache);
  }

  OpenedModel open_other(const OpenedModel& opened) const {
    OpenedModel other = against.model.open();
    if (other.tokenizer && opened.need_tokenizer().vocabulary().pieces != other.tokenizer->vocabulary().pieces) {
      log_warning("{} has a vocabulary of its own: its logits are taken for the same tokens all the same",
                  printable(against.model.model, 400));
    }
    return other;
  }

  void print(const Divergence& d, const CachePlan& plan, const CachePlan& reference) const {
    if (model.json) {
      Json held_against = cache_as_json(reference);
      if (!against.model.model.empty()) held_against["model"] = valid_utf8(against.model.model);
      Json json = divergence_as_json(d);
      json.update(cache_as_json(plan));
      json["against"] = held_against;
      return print_json(json);
    }
    fmt::print("KL divergence in nats: mean {:.3g}, 95 % of tokens up to {:.3g}, largest {:.3g}\n", d.kl_mean(),
               d.kl_quantile(0.95), d.kl_max());
    fmt::print("the likeliest token is the same for {:.2f} % of {} tokens, of the likeliest five {:.2f} %\n",
               100 * d.top1(), d.perplexity().tokens(), 100 * d.top5());
    fmt::print("perplexity {:.5f}, of the reference {:.5f}\n", d.perplexity().value(),
               d.reference_perplexity().value());
    fmt::print("cache:     {}; {:.1f} bytes a token\n", describe(plan), bytes_per_token(plan));
    fmt::print("reference: {}; {:.1f} bytes a token{}\n", describe(reference), bytes_per_token(reference),
               against.model.model.empty() ? "" : ", " + printable(against.model.model, 400));
  }
};

}  // namespace

void add_eval_kl(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("kl", "how far a cache takes the predictions of a text from a reference's");
  command->footer(
      "Both runs read the text in step. For every scored token (those of eval perplexity): the KL divergence Σ p "
      "log(p/q) "
      "of\nwhat the run foretells, q, from what the reference does, p; whether the likeliest token is the same; and "
      "how "
      "many of\nthe reference's likeliest five are among the run's.");
  auto self = std::make_shared<EvalKl>();
  self->model.add_to(*command);
  self->cache.add_to(*command);
  self->text.add_to(*command);
  self->against.parse(self->against.flags);
  command
      ->add_option_function<std::string>(
          "--against", [self](const std::string& flags) { self->against.parse(flags); },
          "flags of the reference's cache, in quotes, and -m where it is another model")
      ->default_str(self->against.flags)
      ->option_text(fmt::format("FLAGS [{}]", self->against.flags));
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
