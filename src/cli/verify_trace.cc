#include "base/error.h"
#include "cli/command.h"
#include "verify/attention_check.h"
#include "verify/trace.h"

namespace contexture::cli {
namespace {

struct VerifyTrace {
  std::string file;
  bool json = false;
  int threads = 0;

  void run() {
    const Trace trace = open_trace(file);
    ThreadPool pool(threads > 0 ? threads : physical_cores());
    if (!json) {
      fmt::print("{:>5} {:>6} {:>8} {:>7} {:>13} {:>14} {:>9}  ok\n", "layer", "step", "queries", "tokens",
                 "largest error", "relative error", "of bound");
    }
    size_t wrong = 0;
    double largest_share = 0;
    catch_interrupts();
    for (size_t i = 0; i < trace.size() && !interrupted(); ++i) {
      TracedAttention attention = trace.attention(i);
      const AttentionCheck check = check_attention(attention.queries(), attention.shape, pool);
      json ? print_json(object(attention, check)) : print_row(attention, check);
      wrong += !check.ok();
      largest_share = std::max(largest_share, check.bound_share);
    }
    if (interrupted()) fail("{}: interrupted; not all attentions were looked at", printable(file, 400));
    if (wrong > 0) {
      fail("{}: {} of {} attentions are not what float64 makes of their q, K and V; look at the rows that say so",
           printable(file, 400), wrong, trace.size());
    }
    if (!json) {
      fmt::print("{} attentions of {}: all ok, the largest error is {:.3g} % of what rounding may make\n", trace.size(),
                 printable(trace.model()), 100 * largest_share);
    }
  }

  static void print_row(const TracedAttention& a, const AttentionCheck& check) {
    const char* verdict = check.ok()                  ? "ok"
                          : !check.each_token_once    ? "WRONG: tokens missing or repeated"
                          : !(check.bound_share <= 1) ? "WRONG"
                                                      : "CANNOT TELL: scores too large for float32";
    fmt::print("{:>5} {:>6} {:>8} {:>7} {:>13.2e} {:>14.2e} {:>7.3g} %  {}\n", a.layer, a.step, a.positions.size(),
               check.tokens, check.max_abs_error, check.relative_error(), 100 * check.bound_share, verdict);
  }

  static Json object(const TracedAttention& a, const AttentionCheck& check) {
    return {{"layer", a.layer},
            {"step", a.step},
            {"sequence", a.sequence},
            {"queries", a.positions.size()},
            {"tokens", check.tokens},
            {"max_abs_error", check.max_abs_error},
            {"relative_error", check.relative_error()},
            {"bound_share", check.bound_share},
            {"each_token_once", check.each_token_once},
            {"decided", check.decided},
            {"ok", check.ok()}};
  }
};

}  // namespace

void add_verify_trace(CLI::App& verify) {
  CLI::App* command = verify.add_subcommand(
      "trace",
      "recompute every attention of a trace in float64 and compare: the bound is what float32's rounding explains");
  auto self = std::make_shared<VerifyTrace>();
  command->add_option("file", self->file, "what run --trace wrote")->required()->option_text("FILE.gguf");
  command->add_flag("--json", self->json, "print one JSON object an attention and nothing else on stdout");
  command->add_option("-t,--threads", self->threads, "threads (default: physical cores)")
      ->check(whole_number(1, 1024))
      ->option_text("N");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
