#include "cli/scored_text.h"

#include "base/error.h"
#include "cache/layout.h"

namespace contexture::cli {

void ScoredTextFlags::add_to(CLI::App& command) {
  command.add_option("-f,--file", file, "the text; - is stdin")->required()->option_text("FILE");
  command.get_option("--context")
      ->description(
          "tokens of a window; the text is read in windows (default: the whole text, up to what the model was "
          "made for)");
  command.add_option("--chunk", chunk, "tokens fed at a time; the result is the same bits for any")
      ->check(whole_number(1, 65536))
      ->capture_default_str();
  command.add_flag("--like-llama-cpp", like_llama_cpp,
                   "score the second half of every whole window and nothing else, as llama-perplexity does (windows of "
                   "512 tokens unless -c says other)");
}

RunOptions ScoredText::fit(RunOptions options) const {
  options.cache.context = std::min(windows.tokens, tokens.size());
  options.chunk = options.logit_rows = std::min(chunk, options.cache.context);
  return options;
}

ScoredText read_scored_text(const ScoredTextFlags& flags, const OpenedModel& opened, size_t context) {
  return read_scored_text(flags, opened.need_tokenizer(), read_config(opened.file.metadata).context, context);
}

ScoredText read_scored_text(const ScoredTextFlags& flags, const Tokenizer& tokenizer, size_t made_for, size_t context) {
  ScoredText text{.tokens = tokenizer.encode(read_text(flags.file)), .windows = {}, .chunk = flags.chunk};
  if (text.tokens.size() < 2) fail("{} has no two tokens; give a text to score", name_of_input(flags.file));
  const size_t whole = text.tokens.size();
  text.windows.tokens = context > 0 ? context : flags.like_llama_cpp ? 512 : made_for;
  if (!flags.like_llama_cpp) text.windows.tokens = std::min(text.windows.tokens, whole);
  warn_beyond_context(text.windows.tokens, made_for);
  if (flags.like_llama_cpp) {
    text.windows.scored_from = text.windows.tokens / 2 + 1;
    text.windows.whole_only = true;
  }
  if (tokenizer.vocabulary().add_begin) text.windows.begin = tokenizer.vocabulary().begin;
  return text;
}

void add_row_options(const CachePlan& plan, Json& json) {
  for (const LayoutOption& option : layout_of(plan).options) {
    if (!option.decides_rows) continue;
    const int64_t value = plan.options.number(option);
    const std::string key(option.name);
    if (option.kind == LayoutOption::Kind::format) {
      json[key] = option.text_of(value);
    } else {
      json[key] = value;
    }
  }
}

Json cache_as_json(const CachePlan& plan) {
  Json json = {{"context", plan.context},
               {"layout", plan.layout},
               {"k_format", name(plan.shape.k_format)},
               {"v_format", name(plan.shape.v_format)}};
  add_row_options(plan, json);
  const Rotation rotation = rotation_of(plan);
  json.update({{"k_rotated", rotation.k}, {"v_rotated", rotation.v}, {"bytes_per_token", bytes_per_token(plan)}});
  return json;
}

Json divergence_as_json(const Divergence& divergence) {
  return {{"kl_mean", divergence.kl_mean()},
          {"kl_p95", divergence.kl_quantile(0.95)},
          {"kl_max", divergence.kl_max()},
          {"top1", divergence.top1()},
          {"top5", divergence.top5()},
          {"tokens", divergence.perplexity().tokens()},
          {"perplexity", divergence.perplexity().value()},
          {"reference_perplexity", divergence.reference_perplexity().value()}};
}

Json needles_as_json(const CachePlan& plan, size_t depth, size_t needles, size_t found) {
  Json json = {
      {"depth", depth}, {"needles", needles}, {"accuracy", static_cast<double>(found) / static_cast<double>(needles)}};
  json.update(cache_as_json(plan));
  return json;
}

double bytes_per_token(const CachePlan& plan) {
  return static_cast<double>(bytes_read(plan, plan.context)) / static_cast<double>(plan.context);
}

}  // namespace contexture::cli
