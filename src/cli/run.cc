#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/host.h"
#include "cli/progress_line.h"
#include "cli/run_session.h"
#include "cli/sampling_flags.h"
#include "cli/trace_flags.h"
#include "engine/generate.h"
#include "engine/prefix_report.h"
#include "kernels/machine.h"
#include "kernels/matmul.h"

namespace contexture::cli {
namespace {

struct Run {
  ModelFlags model;
  CacheFlags cache;
  SamplingFlags sampling;
  TraceFlags tracing;
  StaticFlags compiled;
  RingFlags ring;
  std::string prompt, file, dash, session;
  bool no_special = false, no_bos = false, log_probabilities = false;

  void run() {
    catch_interrupts();
    (void)ring.given({{"--session", !session.empty()}, {"--trace", !tracing.file.empty()}});
    if (!session.empty() && session == tracing.file) fail("--session and --trace name the same file; give two");
    with_host({model, cache, ring, &compiled}, [this](Host& host) { complete(host); });
  }

  void complete(Host& host) const {
    const std::string text = prompt_text();
    GenerateOptions generate = sampling.options(host.metadata());
    std::optional<RunSession> kept;
    if (!session.empty()) kept.emplace(session, host.opened()->file.path);
    const bool goes_on = kept && kept->is_there() && text.empty();
    std::vector<TokenId> ids;
    if (goes_on) {
      ids = kept->go_on(host.tokenizer(), sampling.has_seed(), generate);
    } else {
      ids = host.tokenizer().encode(text, {.add_begin = !no_bos, .parse_special = !no_special});
    }
    start(host, ids, generate, kept);
    if (!goes_on) check_prompt(limits_of(host.executor().capacities()), ids);
    log_run(model.model, host);

    const std::unique_ptr<TraceWriter> trace =
        host.opened() ? tracing.open(name_of(host.opened()->file), host.plan()->config.layers) : nullptr;
    const OwnedSequence sequence(host.executor().books());
    size_t planned = std::min(ids.size() + generate.max_tokens, host.executor().capacities().context);
    std::optional<PrefixReport> prefix;  // all that the cache holds is the session
    if (kept) {
      planned = kept->planned(host.opened()->file, planned);
      prefix = kept->restore(*host.opened(), *host.machine(), sequence.id(), ids, planned);
    }
    const Generation made = generate_shown(host, sequence.id(), text, ids, generate, planned, trace.get(), prefix);
    report(host, sequence.id(), made, generate, kept);
    try {
      if (kept) kept->save(*host.machine(), sequence.id(), ids, made, generate, planned);
    } catch (const Error&) {
      if (trace) trace->finish();
      throw;
    }
    if (trace) trace->finish();
  }

 private:
  /// Makes what runs it, as large as the prompt and the answer ask for.
  void start(Host& host, std::span<const TokenId> ids, GenerateOptions& generate,
             std::optional<RunSession>& kept) const {
    if (!host.opened()) return host.start({});  // graphs are of the size that they are
    RunOptions options = cache.options(host.metadata());
    options.cache.resumable = generate.resumable = kept.has_value();
    if (options.cache.context == 0) {
      options.cache.context = default_context(read_config(host.metadata()), ids.size(), generate.max_tokens);
      if (kept) options.cache.context = kept->context(options.cache.context);
    }
    warn_beyond_context(options.cache.context, host.made_for());
    if (kept) kept->identify(host.opened()->file, options.threads);
    host.start(options);
  }

  Generation generate_shown(Host& host, SequenceId sequence, const std::string& text, const std::vector<TokenId>& ids,
                            const GenerateOptions& generate, size_t planned, TraceWriter* trace,
                            const std::optional<PrefixReport>& prefix) const {
    show(text);
    ProgressLine progress;
    Generation made =
        generate_in(host.executor(), host.tokenizer(), sequence,
                    {.prompt = ids,
                     .options = generate,
                     .callbacks = {.on_token = [&](const GeneratedToken& t) { return show(t.text), true; },
                                   .on_prefill = [&](size_t done, size_t total) { progress.show(done, total); },
                                   .cancelled = &interrupted(),
                                   .observer = trace}},
                    planned);
    if (prefix) made.prefix = *prefix;
    progress.clear();
    show("\n");
    return made;
  }

  /// What was made, and how fast.
  void report(Host& host, SequenceId sequence, const Generation& made, const GenerateOptions& generate,
              const std::optional<RunSession>& kept) const {
    log_info("{}", explain_prefix(made));
    tell("seed {}\n", generate.sampling.seed);
    const std::optional<size_t> clamped = kept ? kept->clamped_values(*host.machine()) : host.clamped_values();
    if (model.json) {
      Json j = result(made);
      if (clamped) j["clamped_values"] = *clamped;
      host.report(sequence, &j);
      return print_json(j);
    }
    host.report(sequence, nullptr);
    print_speed(made, host, clamped);
  }

  void show(std::string_view text) const {
    if (!model.json) std::cout << text << std::flush;
  }

  static std::string name_of(const ModelFile& file) {
    return file.metadata.get_string("general.name", std::filesystem::path(file.path).stem().string());
  }

  std::string prompt_text() const {
    if (!file.empty()) return read_text(file);
    if (!dash.empty()) return read_text("-");
    return prompt;
  }

  static double per_second(size_t tokens, double seconds) {
    return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
  }
  /// The first token comes with the prompt: its pass is counted there.
  static double decode_speed(const Generation& made) {
    return made.token_ids.size() > 1 ? per_second(made.token_ids.size() - 1, made.decode_seconds) : 0;
  }

  Json result(const Generation& made) const {
    Json j = {{"text", valid_utf8(made.text)},
              {"prompt_tokens", made.prompt_tokens},
              {"generated_tokens", made.token_ids.size()},
              {"token_ids", made.token_ids},
              {"prefilled_tokens", made.prefilled_tokens},  // beside those reused: what a miss costs
              {"prefill_seconds", made.prefill_seconds},
              {"prefill_tokens_per_second", per_second(made.prefilled_tokens, made.prefill_seconds)},
              {"decode_tokens_per_second", decode_speed(made)},
              {"finish_reason", name(made.finish_reason)}};
    j["reused_tokens"] = made.prefix.reused_tokens;
    if (const auto& d = made.prefix.first_difference) {
      j["first_difference"] = {{"position", d->position},
                               {"held", {{"id", d->held}, {"text", valid_utf8(d->held_text)}}},
                               {"given", {{"id", d->given}, {"text", valid_utf8(d->given_text)}}}};
    }
    if (log_probabilities) j["log_probabilities"] = made.log_probabilities;
    return j;
  }

  static std::string counts(const Generation& made) {
    const size_t held = made.prompt_tokens - made.prefilled_tokens;
    std::string line = fmt::format("{}{} prompt tokens at {:.1f}/s, {} generated",
                                   held > 0 ? fmt::format("{} of ", made.prefilled_tokens) : "", made.prompt_tokens,
                                   per_second(made.prefilled_tokens, made.prefill_seconds), made.token_ids.size());
    if (made.token_ids.size() > 1) line += fmt::format(" at {:.1f}/s", decode_speed(made));
    return line + fmt::format(" ({})", name(made.finish_reason));
  }

  static void print_speed(const Generation& made, Host& host, std::optional<size_t> clamped) {
    std::string line = counts(made);
    if (host.model() && made.token_ids.size() > 1) line += moved(made, host);
    if (clamped.value_or(0) > 0) line += fmt::format(", {} values of K and V clamped", *clamped);
    tell("{}\n", line);
  }

  /// What a decoded token reads: every weight once, and on average the K and V of half the answer and all the prompt.
  static std::string moved(const Generation& made, Host& host) {
    const size_t depth = made.prompt_tokens + made.token_ids.size() / 2;
    const size_t bytes = host.model()->bytes_per_token() + bytes_read(host.plan()->cache, depth);
    const double moved = static_cast<double>(bytes) * decode_speed(made);
    std::string text = fmt::format(", {:.2f} GB/s moved", moved / 1e9);
    // Small models live in the processor's caches; only what memory must deliver is held against its bandwidth.
    const std::span<const std::byte> weights = host.model()->weights().packed.span();
    if (weights.size() < size_t{256} << 20) return text;
    const double bandwidth =
        read_bandwidth(weights.first(std::min(weights.size(), size_t{1} << 30)), *host.executor().threads());
    return text + fmt::format(", {:.0f} % of the {:.1f} GB/s that this machine reads", 100 * moved / bandwidth,
                              bandwidth / 1e9);
  }
};

}  // namespace

void add_run(CLI::App& app) {
  CLI::App* command = app.add_subcommand("run", "complete a prompt, streaming");
  auto self = std::make_shared<Run>();
  self->model.add_to(*command);
  self->cache.add_to(*command);
  CLI::Option_group* prompt = command->add_option_group("prompt", "one of; none: the model begins by itself");
  prompt->add_option("-p,--prompt", self->prompt, "the prompt")->option_text("TEXT");
  prompt->add_option("-f,--file", self->file, "a file that holds the prompt")->option_text("FILE");
  prompt->add_option("stdin", self->dash, "- reads the prompt from stdin")->check(CLI::IsMember({"-"}));
  prompt->require_option(0, 1);
  self->sampling.add_to(*command);
  self->tracing.add_to(*command);
  command->add_flag("--log-probabilities", self->log_probabilities,
                    "with --json: the natural log-probability of every token, under the same key");
  command->add_flag("--no-bos", self->no_bos, "without the begin token that the model asks for");
  command->add_flag("--no-special", self->no_special, "special tokens in the prompt are text like any other");
  command
      ->add_option(
          "--session", self->session,
          "keep the context in FILE: what the prompt has in common with it is not run again; without a prompt "
          "the text there goes on; the file is written at the end, after Ctrl-C too (chat --session keeps messages, "
          "in another kind of file)")
      ->option_text("FILE");
  self->compiled.add_to(*command);
  self->ring.add_to(*command);
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
