#include <cstdio>

#include "base/error.h"
#include "cache/layout.h"
#include "cli/command.h"
#include "cli/progress_line.h"
#include "cli/scored_text.h"
#include "tensor/kv_row.h"
#include "verify/layouts.h"

namespace contexture::cli {
namespace {

struct VerifyLayouts {
  ModelFlags model;
  std::string prompt, file, plant;
  CacheFlags cache;
  std::vector<std::string> layouts, k_formats, v_formats;
  size_t prompt_tokens = 700;
  bool all = false;

  size_t ways = 0, same = 0, attentions = 0, lines = 0, failed = 0;
  double format_share = 0, rounding_share = 0;

  void run() {
    catch_interrupts();
    const OpenedModel opened = model.open();
    LayoutChecks checks;
    checks.prompt = ids(opened);
    checks.layouts = chosen_layouts();
    checks.all = all;
    checks.cancelled = &interrupted();
    checks.k_formats = chosen_formats(k_formats);
    checks.v_formats = chosen_formats(v_formats);
    cache.check_given(checks.layouts);
    for (const std::string_view layout : checks.layouts) {
      for (const LayoutOption& option : layout_named(layout).options) {
        const std::vector<int64_t> values = cache.given(option);
        if (!values.empty()) checks.options[std::string(option.name)] = values;
      }
    }
    checks.rotate = cache.rotate;
    if (cache.threads == 1) checks.threads = {1};
    if (cache.threads > 1) checks.threads = {1, cache.threads};
    if (!plant.empty()) checks.fault = fault_from_name(plant);
    ProgressLine progress("verifying", "runs", 2);
    const bool ok = check_layouts(opened.file, checks,
                                  {.on_run = [&](size_t done, size_t total) { progress.show(done, total); },
                                   .on_result =
                                       [&](const LayoutResult& result) {
                                         progress.clear();
                                         print(result);
                                       }});
    progress.clear();
    if (interrupted()) return;
    if (!model.json) print_summary(checks.prompt.size());
    if (ok && checks.fault) {
      fail(
          "the mistake planted ({}) was not found: nothing that was run could show it; choose other layouts or "
          "formats, "
          "or a longer prompt",
          checks.fault->what);
    }
    if (!ok) fail("{} of {} layouts and formats do not hold; the lines above say where", failed, lines);
  }

  std::vector<int32_t> ids(const OpenedModel& opened) const {
    const ModelConfig config = read_config(opened.file.metadata);
    if (prompt.empty() && file.empty()) return made_prompt(std::min(prompt_tokens, config.context), config.vocabulary);
    std::vector<int32_t> tokens = opened.need_tokenizer().encode(file.empty() ? prompt : read_text(file));
    for (const int32_t id : tokens) {
      if (static_cast<size_t>(id) >= config.vocabulary) {
        fail("token {} is outside the model's vocabulary of {}; is this its tokenizer?", id, config.vocabulary);
      }
    }
    warn_beyond_context(tokens.size(), config.context);
    return tokens;
  }

  std::vector<std::string_view> chosen_layouts() const {
    if (layouts.empty()) return cache_layouts();
    return {layouts.begin(), layouts.end()};
  }

  static std::vector<Format> chosen_formats(const std::vector<std::string>& names) {
    std::vector<Format> formats;
    for (const std::string& name : names) formats.push_back(*format_from_name(name));
    if (names.empty()) formats.assign(kv_formats().begin(), kv_formats().end());
    return formats;
  }

  static void print_head() {
    fmt::print("{:<11} {:<8} {:<8} {:<7} {:>9} {:>11} {:>9} {:>9} {:>9}\n", "layout", "K", "V", "rotated", "same bits",
               "max error", "of format", "of float", "KL");
    std::fflush(stdout);
  }

  void print(const LayoutResult& r) {
    ++lines;
    ways += r.ways;
    same += r.same;
    failed += !r.ok();
    attentions += r.shares_reference ? 0 : r.oracle.attentions;
    format_share = std::max(format_share, r.oracle.format_share);
    rounding_share = std::max(rounding_share, r.oracle.rounding_share);
    if (model.json) return print_json(as_json(r));
    if (lines == 1) print_head();
    const CachePlan& c = r.cache;
    std::string options;
    for (const LayoutOption& option : layout_of(c).options) {
      if (!option.decides_rows) continue;
      options += options.empty() ? "  " : ", ";
      options += fmt::format("{} {}", option.label, option.text_of(c.options.number(option)));
    }
    const Rotation rotation = rotation_of(c);
    const char* rotated = rotation.k && rotation.v ? "K, V" : rotation.k ? "K" : rotation.v ? "V" : "";
    fmt::print("{:<11} {:<8} {:<8} {:<7} {:>9} {:>11.2e} {:>9.3f} {:>9.3f} {:>9.2e}  {}{}\n", c.layout,
               name(c.shape.k_format), name(c.shape.v_format), rotated, fmt::format("{} of {}", r.same, r.ways),
               r.oracle.max_abs_error, r.oracle.format_share, r.oracle.rounding_share, r.kl, r.ok() ? "ok" : "FAILED",
               options);
    for (const std::string& failure : r.failures) fmt::print("    {}\n", failure);
    std::fflush(stdout);
  }

  static Json as_json(const LayoutResult& r) {
    const CachePlan& c = r.cache;
    Json j = {{"layout", c.layout},
              {"k_format", name(c.shape.k_format)},
              {"v_format", name(c.shape.v_format)},
              {"k_rotated", rotation_of(c).k},
              {"v_rotated", rotation_of(c).v},
              {"bit_equal", r.same == r.ways},
              {"max_abs_error", r.oracle.max_abs_error},
              {"kl", r.kl},
              {"ok", r.ok()},
              {"ways", r.ways},
              {"equal_ways", r.same},
              {"format_share", r.oracle.format_share},
              {"rounding_share", r.oracle.rounding_share}};
    add_row_options(c, j);
    if (!r.failures.empty()) j["failures"] = r.failures;
    return j;
  }

  void print_summary(size_t tokens) const {
    fmt::print("{} tokens in {} ways, {} of them the bits of their reference; {} attentions recomputed in float64\n",
               tokens, ways, same, attentions);
    fmt::print("largest share of what a format's rounding may cost {:.3f}, of what float32's may {:.3f}\n",
               format_share, rounding_share);
  }
};

}  // namespace

void add_verify_layouts(CLI::App& verify) {
  CLI::App* command = verify.add_subcommand(
      "layouts",
      "run one prompt through every layout and format, and hold each against the others and against float64");
  auto self = std::make_shared<VerifyLayouts>();
  self->model.add_to(*command);
  CLI::Option_group* input = command->add_option_group("prompt", "one of; none: token ids of its own");
  input->add_option("-p,--prompt", self->prompt, "a text")->option_text("TEXT");
  input->add_option("-f,--file", self->file, "a file that holds one")->option_text("FILE");
  input->require_option(0, 1);
  command->add_option("--prompt-tokens", self->prompt_tokens, "tokens of its own (default: 700)")
      ->check(whole_number(kShortestPrompt, 1 << 20))
      ->option_text("N");
  const std::vector<std::string_view> layouts = cache_layouts();
  self->cache.add_to(*command);
  for (const char* other : {"--cache", "--k-format", "--v-format", "--context"}) {
    command->remove_option(command->get_option(other));
  }
  command->add_option("--cache", self->layouts, "these layouts only")
      ->check(CLI::IsMember(std::vector<std::string>(layouts.begin(), layouts.end())))
      ->delimiter(',');
  command->add_option("--k-format,--ctk", self->k_formats, "these formats of K only (also -ctk)")
      ->check(CLI::IsMember(cache_formats()))
      ->delimiter(',');
  command->add_option("--v-format,--ctv", self->v_formats, "these formats of V only (also -ctv)")
      ->check(CLI::IsMember(cache_formats()))
      ->delimiter(',');
  for (const CacheLayout* layout : all_layouts()) {
    for (const LayoutOption& chosen : layout->options) {
      if (chosen.of_many) continue;
      CLI::Option* option = command->get_option(chosen.flag())->default_str("");
      option->expected(1, CLI::detail::expected_max_vector_size)->delimiter(',');
      option->description(fmt::format("{}: these only (default: several)", chosen.help));
    }
  }
  command->get_option("--rotate")
      ->description(
          "K and V rotated by a Hadamard matrix in all lines, or in none (default: both, and as caches are where "
          "nobody "
          "says)");
  command->get_option("--threads")->description("threads: ways with one, and with so many (default: 1, 2 and 3)");
  command->add_flag(
      "--all", self->all,
      "every combination of formats, rotations, chunks, pages, threads, company and starts, and every attention: "
      "hours; by default any two of their values meet: a minute");
  std::vector<std::string> faults;
  for (const Fault& fault : all_faults()) faults.emplace_back(fault.name);
  command->add_option("--plant", self->plant, "for tests: makes a mistake on purpose, which must be found")
      ->check(CLI::IsMember(faults))
      ->option_text("FAULT");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
