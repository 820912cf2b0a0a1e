#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "cli/command.h"
#include "cli/progress_line.h"
#include "cli/ring_flags.h"
#include "cli/run_session.h"
#include "cli/sampling_flags.h"
#include "cli/static_flags.h"
#include "cli/trace_flags.h"
#include "engine/prefix_report.h"
#include "engine/scheduler.h"
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
    if (ring.given({{"--session", !session.empty()},
                    {"--trace", !tracing.file.empty()},
                    {"--context-dir", compiled.given()}})) {
      return run_ring();
    }
    if (compiled.given()) return run_compiled();
    const OpenedModel opened = model.open();
    const Tokenizer& tokenizer = opened.need_tokenizer();
    const std::string text = prompt_text();
    GenerateOptions generate = sampling.options(opened.file.metadata);
    if (!session.empty() && session == tracing.file) fail("--session and --trace name the same file; give two");
    std::optional<RunSession> kept;
    if (!session.empty()) kept.emplace(session, opened.file.path);
    const bool goes_on = kept && kept->is_there() && text.empty();
    std::vector<TokenId> ids;
    if (goes_on) {
      ids = kept->go_on(tokenizer, sampling.has_seed(), generate);
    } else {
      ids = tokenizer.encode(text, {.add_begin = !no_bos, .parse_special = !no_special});
    }
    RunOptions options = cache.options(opened.file.metadata);
    options.cache.resumable = generate.resumable = kept.has_value();
    const ModelConfig config = read_config(opened.file.metadata);
    if (options.cache.context == 0) {
      options.cache.context = default_context(config, ids.size(), generate.max_tokens);
      if (kept) options.cache.context = kept->context(opened.file, options.cache.context);
    }
    warn_beyond_context(options.cache.context, config.context);

    const MemoryPlan plan = plan_memory(opened.file, options);
    if (!goes_on) check_prompt(plan, ids);
    if (kept) kept->identify(opened.file, plan.workspace.threads);
    const std::unique_ptr<TraceWriter> trace = tracing.open(name_of(opened.file), config.layers);
    Runtime runtime(opened.file, plan);
    log_run(runtime);
    const OwnedSequence sequence(runtime.cache());
    PrefixReport prefix;  // all that the cache holds is the session
    if (kept) prefix = kept->restore(opened, runtime, sequence.id(), ids);
    show(text);
    ProgressLine progress;
    Generation made = generate_in(runtime, tokenizer, sequence.id(), ids, generate,
                                  {.on_token = [&](const GeneratedToken& t) { return show(t.text), true; },
                                   .on_prefill = [&](size_t done, size_t total) { progress.show(done, total); },
                                   .cancelled = &interrupted(),
                                   .observer = trace.get()});
    made.prefix = prefix;
    progress.clear();
    show("\n");
    spdlog::info(explain_prefix(made));
    tell("seed {}\n", generate.seed);
    const size_t clamped = kept ? kept->clamped_values(runtime) : runtime.cache().clamped_values();
    if (model.json) {
      Json j = result(made);
      j["clamped_values"] = clamped;
      print_json(j);
    } else {
      print_speed(made, runtime, clamped);
    }
    try {
      if (kept) kept->save(runtime, sequence.id(), ids, made, generate);
    } catch (const Error&) {
      if (trace) trace->finish();
      throw;
    }
    if (trace) trace->finish();
  }

  void run_ring() const {
    std::optional<SharedModel> shared;
    ring.run([&] { shared.emplace(model.open()); }, [&](Communicator& ranks) { run_rank(*shared, ranks); });
  }

  /// All ranks compute the same text; rank 0 reads the prompt and shows it.
  void run_rank(SharedModel& shared, Communicator& ranks) const {
    const OpenedModel& opened = shared.opened();
    const Tokenizer& tokenizer = opened.need_tokenizer();
    const bool speaks = ranks.rank() == 0;
    const std::string text = broadcast_text(ranks, 0, speaks ? prompt_text() : std::string());
    GenerateOptions generate = sampling.options(opened.file.metadata);
    agree_on_sampling(ranks, generate);
    const std::vector<TokenId> ids = tokenizer.encode(text, {.add_begin = !no_bos, .parse_special = !no_special});
    RunOptions options = cache.options(opened.file.metadata);
    options.ranks = static_cast<size_t>(ranks.ranks());
    options.threads = ring.threads_of_rank(cache.threads);
    const ModelConfig config = read_config(opened.file.metadata);
    if (options.cache.context == 0) {
      options.cache.context = default_context(config, ids.size(), generate.max_tokens);
    }
    if (speaks) warn_beyond_context(options.cache.context, config.context);
    const std::unique_ptr<Runtime> runtime = shared.runtime(options, ranks, ring);
    check_prompt(runtime->plan(), ids);
    if (speaks) {
      log_run(*runtime);
      show(text);
    }
    runtime->ring()->watch(&interrupted());
    ProgressLine progress;
    GenerationCallbacks callbacks;
    callbacks.cancelled = &runtime->ring()->cancelled();
    if (speaks) {
      callbacks.on_token = [&](const GeneratedToken& t) { return show(t.text), true; };
      callbacks.on_prefill = [&](size_t done, size_t total) { progress.show(done, total); };
    }
    const OwnedSequence sequence(runtime->cache());
    const Generation made = generate_in(*runtime, tokenizer, sequence.id(), ids, generate, callbacks);
    const std::vector<RingReport> reports = runtime->ring()->report(sequence.id());
    if (!speaks) return;
    progress.clear();
    show("\n");
    tell("seed {}\n", generate.seed);
    if (model.json) {
      Json j = result(made);
      j["ranks"] = ring_json(reports);
      print_json(j);
    } else {
      print_ring(reports);
      print_speed(made, *runtime, runtime->cache().clamped_values());
    }
  }

  void run_compiled() {
    StaticModel loaded(compiled.options(model.tokenizer, cache.threads));
    const std::string text = prompt_text();
    const GenerateOptions generate = sampling.options(loaded.metadata_file().metadata);
    const std::vector<TokenId> ids =
        loaded.tokenizer().encode(text, {.add_begin = !no_bos, .parse_special = !no_special});
    check_prompt(loaded.limits(), ids);
    show(text);
    ProgressLine progress;
    const Generation made =
        generate_static(loaded.runner(), loaded.tokenizer(), ids, generate,
                        {.on_token = [&](const GeneratedToken& t) { return show(t.text), true; },
                         .on_prefill = [&](size_t done, size_t total) { progress.show(done, total); },
                         .cancelled = &interrupted(),
                         .observer = nullptr});
    progress.clear();
    show("\n");
    log_shards(loaded.runner());
    tell("seed {}\n", generate.seed);
    if (model.json) return print_json(result(made));
    tell("{}\n", counts(made));
  }

  static void log_shards(const StaticRunner& runner) {
    for (const bool prefill : {true, false}) {
      const std::vector<cxg_timings> timings = runner.timings(prefill);
      for (size_t i = 0; i < timings.size(); ++i) {
        if (timings[i].executions == 0) continue;
        spdlog::debug(
            "{}, {}: {} executions of {:.3f} ms", runner.shards()[i].name, prefill ? "prefill_forward" : "kv_forward",
            timings[i].executions,
            1e-6 * static_cast<double>(timings[i].total_nanoseconds) / static_cast<double>(timings[i].executions));
      }
    }
    const FixedKv::Moved& moved = runner.kv().moved();
    spdlog::info("copied: {} B of K, {} B of V, {} B rearranged between graphs; {} views registered", moved.k, moved.v,
                 moved.rearranged, runner.memory().registered);
  }

  void show(std::string_view text) const {
    if (!model.json) std::cout << text << std::flush;
  }

  void log_run(Runtime& runtime) const {
    const MemoryPlan& plan = runtime.plan();
    spdlog::info("{}: {} of {} layers; {} of weights, {} of cache ({}), {} of workspace; {} threads", model.model,
                 plan.config.family, plan.config.layers, human_bytes(plan.weights_bytes), human_bytes(plan.cache_bytes),
                 describe(plan.cache), human_bytes(plan.workspace_bytes), runtime.pool().threads());
    spdlog::debug("kernels for {}; steps of {} tokens", kernel_target(), plan.workspace.tokens);
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

  static void print_speed(const Generation& made, Runtime& runtime, size_t clamped) {
    // What a decoded token reads: every weight once, and on average the K and V of half the answer and all the prompt.
    const size_t depth = made.prompt_tokens + made.token_ids.size() / 2;
    const size_t bytes = runtime.model().bytes_per_token() + bytes_read(runtime.plan().cache, depth);
    const double moved = static_cast<double>(bytes) * decode_speed(made);
    std::string line = counts(made);
    if (made.token_ids.size() > 1) line += fmt::format(", {:.2f} GB/s moved", moved / 1e9);
    // Small models live in the processor's caches; only what memory must deliver is held against its bandwidth.
    const std::span<const std::byte> weights = runtime.model().weights().packed.span();
    if (made.token_ids.size() > 1 && weights.size() >= size_t{256} << 20) {
      const double bandwidth = read_bandwidth(weights.first(std::min(weights.size(), size_t{1} << 30)), runtime.pool());
      line += fmt::format(", {:.0f} % of the {:.1f} GB/s that this machine reads", 100 * moved / bandwidth,
                          bandwidth / 1e9);
    }
    if (clamped > 0) line += fmt::format(", {} values of K and V clamped", clamped);
    tell("{}\n", line);
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
