#include "contexture/model.h"

#include <algorithm>
#include <filesystem>

#include "api/model_impl.h"
#include "base/error.h"
#include "base/json.h"
#include "base/processor.h"
#include "engine/runtime.h"

namespace contexture {
namespace {

int threads_or_all(int threads) {
  return threads > 0 ? threads : physical_cores();
}

ModelFacts facts_of(const OpenedModel& opened, const ModelConfig& config, size_t weights_bytes) {
  const Metadata& metadata = opened.file.metadata;
  const std::string stem = std::filesystem::path(opened.file.path).stem().string();
  return {.name = metadata.get_string("general.name", stem),
          .family = config.family,
          .layers = config.layers,
          .heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .hidden = config.dim,
          .vocabulary = config.vocabulary,
          .context = config.context,
          .weights_bytes = weights_bytes,
          .has_tokenizer = opened.tokenizer.has_value(),
          .has_chat_template = !metadata.get_string("tokenizer.chat_template", "").empty()};
}

nlohmann::ordered_json json_of(const std::string& text, const char* what) {
  if (text.empty()) return nullptr;
  return parse_ordered_json(text, what, "mend it");
}

Rendering rendering_of(const ChatTemplate& chat_template, const ChatPrompt& prompt) {
  return chat_template.render(ChatInput{.messages = json_of(prompt.messages, "messages"),
                                        .tools = json_of(prompt.tools, "tools"),
                                        .variables = json_of(prompt.variables, "variables"),
                                        .add_generation_prompt = prompt.add_answer});
}

}  // namespace

const ChatTemplate& Model::Impl::chat_template(const std::string& format, bool parse_special) const {
  const std::lock_guard lock(template_mutex_);
  const auto found = templates_.find({format, parse_special});
  if (found != templates_.end()) return found->second;
  return templates_
      .emplace(std::pair(format, parse_special),
               ChatTemplate::choose(opened.file.metadata, opened.need_tokenizer().vocabulary(), format, parse_special))
      .first->second;
}

const Digest& Model::Impl::digest() const {
  const std::lock_guard lock(digest_mutex_);
  if (!digest_) {
    ThreadPool pool(physical_cores());
    digest_ = identify_model(opened.file, pool);
  }
  return *digest_;
}

Model Model::open(const std::string& path, const ModelOptions& options) {
  if (options.weights) check_processor();
  auto impl = std::make_shared<Impl>();
  impl->opened = open_with_tokenizer(path, options.tokenizer_path, {.weights = options.weights});
  impl->config = read_config(impl->opened.file.metadata);
  const WeightBytes bytes = check_weights(impl->opened.file, impl->config);
  if (options.weights) impl->transformer = load_transformer(impl->opened.file, threads_or_all(options.threads));
  impl->facts = facts_of(impl->opened, impl->config, bytes.total());
  return Model(std::move(impl));
}

const ModelFacts& Model::facts() const {
  return impl_->facts;
}

std::vector<int32_t> Model::tokens_of(const Prompt& prompt) const {
  if (const auto* tokens = std::get_if<TokenPrompt>(&prompt)) return tokens->tokens;
  const Tokenizer& tokenizer = impl_->opened.need_tokenizer();
  if (const auto* text = std::get_if<TextPrompt>(&prompt)) {
    return tokenizer.encode(
        text->text, {.add_begin = text->add_begin, .parse_special = text->parse_special, .goes_on = text->goes_on});
  }
  const ChatPrompt& chat = std::get<ChatPrompt>(prompt);
  const ChatTemplate& chat_template = impl_->chat_template(chat.chat_format, chat.parse_special);
  return chat_template.encode(tokenizer, rendering_of(chat_template, chat));
}

std::string Model::text_of(std::span<const int32_t> tokens, bool show_special) const {
  return impl_->opened.need_tokenizer().decode(tokens, show_special);
}

std::string Model::piece_of(int32_t token) const {
  const Tokenizer& tokenizer = impl_->opened.need_tokenizer();
  if (token < 0 || static_cast<size_t>(token) >= tokenizer.size()) {
    fail("token {} is outside the vocabulary of {}", token, tokenizer.size());
  }
  return tokenizer.piece(token);
}

bool Model::is_end(int32_t token) const {
  return impl_->opened.need_tokenizer().is_end(token);
}

std::vector<Segment> Model::render(const ChatPrompt& prompt) const {
  const Rendering rendering = rendering_of(impl_->chat_template(prompt.chat_format, prompt.parse_special), prompt);
  std::vector<Segment> segments;
  size_t at = 0;
  const auto add = [&](size_t end, bool content) {
    if (end > at) segments.push_back({rendering.text.substr(at, end - at), content});
    at = end;
  };
  for (const ByteRange& range : rendering.content) {
    add(range.begin, false);
    add(range.end, true);
  }
  add(rendering.text.size(), false);
  return segments;
}

Plan Model::plan(const EngineOptions& options) const {
  return shown(memory_plan(*impl_, options));
}

}  // namespace contexture
