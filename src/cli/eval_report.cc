#include <fmt/format.h>

#include <filesystem>

#include "base/atomic_file.h"
#include "base/error.h"
#include "cache/layout.h"
#include "cli/progress_line.h"
#include "cli/scored_text.h"
#include "verify/divergence.h"
#include "verify/needle.h"

namespace contexture::cli {
namespace {

using F = Format;

/// A way to hold the context.
struct Way {
  std::string_view layout;
  F k, v;
  std::optional<bool> rotate = {};
  LayoutOptions options = {};
};

/// Layouts that hold all tokens alike, then what only a mixed cache can.
std::vector<Way> ways_to_hold() {
  std::vector<Way> ways;
  for (const std::string_view layout : {"contiguous", "paged"}) {
    for (const F format : {F::f32, F::f16, F::bf16, F::q8_0}) ways.push_back({layout, format, format});
    ways.push_back({layout, F::q8_0, F::q4_0});
    ways.push_back({layout, F::q4_0, F::q4_0});
    ways.push_back({.layout = layout, .k = F::q4_0, .v = F::q4_0, .rotate = false});
  }
  const auto cold = [](F k, F v) { return LayoutOptions{{"cold_k_format", k}, {"cold_v_format", v}}; };
  ways.push_back({"mixed", F::f16, F::f16, {}, cold(F::q8_0, F::q8_0)});
  ways.push_back({"mixed", F::f16, F::f16, {}, cold(F::q8_0, F::q4_0)});
  ways.push_back({"mixed", F::f16, F::f16, {}, cold(F::q4_0, F::q4_0)});
  ways.push_back({"mixed", F::f16, F::f16, false, cold(F::q4_0, F::q4_0)});
  return ways;
}

RunOptions options_of(const Way& way, int threads) {
  RunOptions options;
  options.cache.layout = way.layout;
  options.cache.shape.k_format = way.k;
  options.cache.shape.v_format = way.v;
  options.cache.options = way.options;
  options.cache.rotate = way.rotate;
  options.threads = threads;
  return options;
}

/// "f16" or "q4_0, hot f16".
std::string side(F format, std::optional<F> cold, bool rotated) {
  std::string text(name(cold.value_or(format)));
  if (rotated) text += " rotated";
  if (cold) text += fmt::format(", hot {}", name(format));
  return text;
}

/// The first cells of a row: layout, K, V, bytes a token.
std::string cells_of(const CachePlan& plan) {
  const Rotation rotation = rotation_of(plan);
  const std::optional<KvFormatPair> cold = cold_formats(plan);
  return fmt::format("| {} | {} | {} | {:.0f} |", plan.layout,
                     side(plan.shape.k_format, cold ? std::optional(cold->k) : std::nullopt, rotation.k),
                     side(plan.shape.v_format, cold ? std::optional(cold->v) : std::nullopt, rotation.v),
                     bytes_per_token(plan));
}

/// eval report: every layout and format on one text, and on needles.
struct EvalReport {
  ModelFlags model;
  ScoredTextFlags text;
  std::string output;
  size_t context = 0;
  int threads = 0;
  std::vector<size_t> depths = {128, 512, 2048, 4096};

  static constexpr size_t kNeedles = 50;

  void run() {
    catch_interrupts();
    if (threads == 0) threads = physical_cores();
    const bool is_own = model.model != bundled_model();
    if (text.file.empty()) {
      if (is_own) fail("a model of your own needs a text of its kind; name one with -f");
      text.file = heldout_text();
    }
    report_text();
    if (!is_own && !interrupted()) report_needles();
    if (interrupted() || output.empty()) return;
    AtomicFile file(output);
    file.write({reinterpret_cast<const std::byte*>(whole_.data()), whole_.size()});
    file.publish();
  }

  void report_text() {
    const OpenedModel opened = model.open();
    if (!output.empty()) (void)path_to_write(output);
    const ScoredText scored = read_scored_text(text, opened, context);
    const RunOptions reference_options = scored.fit(options_of({"contiguous", F::f32, F::f32}, threads));
    say("{} on {} tokens of {}, in windows of {}, against a contiguous cache in f32:\n\n",
        std::filesystem::path(opened.file.path).filename().string(), scored.tokens.size(),
        name_of_input(std::filesystem::path(text.file).filename().string()), reference_options.cache.context);
    say("| layout | K | V | bytes a token | perplexity | KL mean | KL 95 % | KL max | top-1 | top-5 |\n");
    say("|---|---|---|---|---|---|---|---|---|---|\n");
    for (const Way& way : ways_to_hold()) {
      Runtime runtime(opened.file, scored.fit(options_of(way, threads)));
      Runtime reference(opened.file, reference_options);
      ProgressLine progress("scoring the text");
      const std::optional<Divergence> d = measure_divergence(
          scored.tokens, scored.windows, reference, runtime,
          {.on_chunk = [&](size_t done, size_t total) { progress.show(done, total); }, .cancelled = &interrupted()});
      progress.clear();
      if (!d) return;
      const CachePlan& plan = runtime.plan().cache;
      if (model.json) {
        Json json = cache_as_json(plan);
        json.update(divergence_as_json(*d));
        print_json(json);
      }
      say("{} {:.5f} | {:.2g} | {:.2g} | {:.2g} | {:.2f} % | {:.2f} % |\n", cells_of(plan), d->perplexity().value(),
          d->kl_mean(), d->kl_quantile(0.95), d->kl_max(), 100 * d->top1(), 100 * d->top5());
    }
  }

  void report_needles() {
    const OpenedModel opened = open_with_tokenizer(needle_model());
    const NeedleTokens tokens = needle_tokens(opened.file);
    say("\n{}, which finds what followed a word, asked for {} words in contexts of each length; bytes a token at "
        "{}:\n\n",
        "needle.gguf", kNeedles, depths.back());
    say("| layout | K | V | bytes a token |");
    for (const size_t depth : depths) say(" found of {} in {} |", kNeedles, depth);
    say("\n|---|---|---|---|");
    for (size_t i = 0; i < depths.size(); ++i) say("---|");
    say("\n");
    for (const Way& way : ways_to_hold()) {
      const RunOptions options = options_of(way, threads);
      say("{}", cells_of(plan_memory(opened.file, needle_options(options, depths.back())).cache));
      for (const size_t depth : depths) {
        const NeedleContext context = hide_needles(tokens, depth, kNeedles);
        Runtime runtime(opened.file, needle_options(options, depth));
        const auto answers = ask_all(runtime, context, {}, &interrupted());
        if (!answers) return;
        const size_t found = count_right(*answers);
        if (model.json) print_json(needles_as_json(runtime.plan().cache, depth, kNeedles, found));
        say(" {} |", found);
      }
      say("\n");
    }
  }

  /// Shown at once, unless the file or JSON is wanted.
  template <class... Values>
  void say(fmt::format_string<Values...> format, Values&&... values) {
    const std::string some = fmt::format(format, std::forward<Values>(values)...);
    whole_ += some;
    if (model.json || !output.empty()) return;
    fmt::print("{}", some);
    std::fflush(stdout);
  }

 private:
  std::string whole_;
};

}  // namespace

void add_eval_report(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("report", "every layout and format on one text and on needles, as Markdown");
  auto self = std::make_shared<EvalReport>();
  self->model.add_to(*command);
  command->get_option("--model")->description("a model of your own, with -f (default: the bundled ones)");
  command->add_option("-c,--context", self->context, "");
  self->text.add_to(*command);
  command->get_option("--file")->required(false);
  command->add_option("-t,--threads", self->threads, "threads (default: physical cores)")
      ->check(whole_number(1, 1024))
      ->option_text("N");
  command->add_option("--depths", self->depths, "tokens of the contexts with needles, separated by commas")
      ->delimiter(',')
      ->check(whole_number(2 * EvalReport::kNeedles, kManyTokens))
      ->option_text("N,N,... [128,512,2048,4096]");
  command->add_option("-o,--output", self->output, "the file to write, instead of stdout")->option_text("FILE");
  command->callback([self] { self->run(); });
  eval.callback([self, &eval] {
    if (!eval.get_subcommands().empty()) return;
    self->model.model = bundled_model();
    self->run();
  });
}

}  // namespace contexture::cli
