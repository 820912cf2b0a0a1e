#include "base/error.h"
#include "base/log.h"
#include "cache/layout.h"
#include "cli/command.h"
#include "cli/host.h"
#include "cli/progress_line.h"
#include "cli/scored_text.h"
#include "verify/needle.h"

namespace contexture::cli {
namespace {

/// eval needle: how many of the facts hidden in a context are found again.
struct EvalNeedle {
  ModelFlags model;
  CacheFlags cache;
  std::vector<size_t> depths = {128, 512, 2048, 4096};
  size_t needles = 50;
  RingFlags ring;

  void run() {
    catch_interrupts();
    with_host({model, cache, ring}, [this](Host& host) {
      const std::vector<NeedleContext> contexts = hide(host.opened()->file);
      print_head();
      for (const NeedleContext& context : contexts) {
        host.start(needle_options(cache.options(host.metadata()), context.tokens.size()));
        if (!measure(host, context)) return;
      }
    });
  }

  /// All of them, or an error: before the first line is printed.
  std::vector<NeedleContext> hide(const ModelFile& file) const {
    const NeedleTokens tokens = needle_tokens(file);
    const size_t most = read_config(file.metadata).context - 1;
    std::vector<NeedleContext> contexts;
    for (const size_t depth : depths) {
      if (depth > most) fail("depth {}: the model was made for {} and a question; ask for less", depth, most);
      contexts.push_back(hide_needles(tokens, depth, needles));
    }
    return contexts;
  }

  void print_head() const {
    if (model.json) return;
    fmt::print("{:>8}  {:<12}{:<11}{:<11}{:>7}{:>7}{:>11}\n", "depth", "layout", "K", "V", "needles", "found",
               "accuracy");
  }

  /// False where it was interrupted.
  bool measure(Host& host, const NeedleContext& context) const {
    const size_t depth = context.tokens.size();
    ProgressLine progress;
    const auto answers = ask_all(
        host.executor(), context, [&](size_t done) { progress.show(done, depth); }, &interrupted());
    progress.clear();
    if (!answers) return false;
    for (const NeedleAnswer& answer : *answers) {
      if (!answer.is_right()) log_wrong(*host.opened(), depth, answer);
    }
    print(host.plan()->cache, depth, count_right(*answers));
    return true;
  }

  static void log_wrong(const OpenedModel& opened, size_t depth, const NeedleAnswer& answer) {
    const auto word = [&](TokenId id) {
      return opened.tokenizer ? printable(opened.tokenizer->piece(id)) : fmt::format("token {}", id);
    };
    log_info("depth {}, key {} at {}: '{}' instead of '{}', whose logit is {:.3g} lower", depth,
             word(answer.needle.key), answer.needle.position, word(answer.answer), word(answer.needle.value),
             -answer.lead);
  }

  void print(const CachePlan& plan, size_t depth, size_t found) const {
    if (model.json) return print_json(needles_as_json(plan, depth, needles, found));
    const std::optional<KvFormatPair> cold = cold_formats(plan);
    const auto formats = [&](Format hot, Format KvFormatPair::*side) {
      return cold ? fmt::format("{}/{}", name(hot), name((*cold).*side)) : std::string(name(hot));
    };
    fmt::print("{:>8}  {:<12}{:<11}{:<11}{:>7}{:>7}{:>9.1f} %\n", depth, plan.layout,
               formats(plan.shape.k_format, &KvFormatPair::k), formats(plan.shape.v_format, &KvFormatPair::v), needles,
               found, 100 * static_cast<double>(found) / static_cast<double>(needles));
    std::fflush(stdout);
  }
};

}  // namespace

void add_eval_needle(CLI::App& eval) {
  CLI::App* command = eval.add_subcommand("needle", "how much of what is hidden in a context is found again");
  auto self = std::make_shared<EvalNeedle>();
  self->model.add_to(*command);
  command->preparse_callback([self](size_t) { self->model.model = needle_model(); });
  command->get_option("--model")->description("a needle model (default: the one that ships)");
  self->cache.add_to(*command);
  command->remove_option(command->get_option("--context"));
  command->add_option("--depths", self->depths, "tokens of the contexts, separated by commas")
      ->delimiter(',')
      ->check(whole_number(2, kManyTokens))
      ->option_text("N,N,... [128,512,2048,4096]");
  command->add_option("--needles", self->needles, "facts hidden in each, all of which are asked for")
      ->check(whole_number(1, 65536))
      ->capture_default_str();
  self->ring.add_to(*command);
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
