#include "chat/chat_template.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "chat/chat_formats.h"

namespace contexture {
namespace {

std::string format_names() {
  std::string names;
  for (const ChatFormat& format : chat_formats()) {
    if (!names.empty()) names += ", ";
    names += format.name;
  }
  return names;
}

std::string piece_of(const Vocabulary& vocabulary, std::optional<TokenId> id) {
  return id ? vocabulary.pieces.at(static_cast<size_t>(*id)) : std::string();
}

bool is_space(char c) {
  return c == ' ' || (c >= '\t' && c <= '\r');
}

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
  while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
  return text;
}

/// The same without its system message, whose text goes in front of the first user message; nothing where there is no
/// system message to fold or no user message to take it.
std::optional<std::vector<ChatMessage>> folded(std::span<const ChatMessage> messages) {
  if (messages.empty() || messages[0].role != "system") return std::nullopt;
  std::vector<ChatMessage> others(messages.begin() + 1, messages.end());
  for (ChatMessage& message : others) {
    if (message.role != "user") continue;
    if (!messages[0].content.empty()) message.content = messages[0].content + "\n\n" + message.content;
    return others;
  }
  return std::nullopt;
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, const Vocabulary& vocabulary)
    : template_(source),
      begin_(piece_of(vocabulary, vocabulary.begin)),
      end_(piece_of(vocabulary, vocabulary.end)),
      takes_system_(takes_system()) {}

ChatTemplate ChatTemplate::choose(const Metadata& metadata, const Vocabulary& vocabulary, const std::string& format) {
  if (!format.empty()) {
    const ChatFormat* found = find_chat_format(format);
    if (!found) fail("there is no chat format '{}'; choose one of {}", printable(format), format_names());
    return {found->source, vocabulary};
  }
  const std::string source = metadata.get_string("tokenizer.chat_template", "");
  if (source.empty()) {
    fail("{} brings no chat template; name its format with --chat-format ({})", printable(metadata.origin(), 400),
         format_names());
  }
  return {source, vocabulary};
}

std::string ChatTemplate::render_as_it_is(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) list.push_back({{"role", message.role}, {"content", message.content}});
  return template_.render({{"messages", std::move(list)},
                           {"bos_token", begin_},
                           {"eos_token", end_},
                           {"add_generation_prompt", add_generation_prompt}});
}

std::string ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  if (takes_system_) return render_as_it_is(messages, add_generation_prompt);
  const std::optional<std::vector<ChatMessage>> without_system = folded(messages);
  return render_as_it_is(without_system ? *without_system : messages, add_generation_prompt);
}

/// Found by a conversation whose system message would be seen.
bool ChatTemplate::takes_system() const {
  const ChatMessage conversation[] = {{"system", "SYSTEM1"}, {"user", "QUESTION1"}};
  try {
    return render_as_it_is(conversation, /*add_generation_prompt=*/true).find("SYSTEM1") != std::string::npos;
  } catch (const Error&) {
    return false;
  }
}

std::vector<TokenId> ChatTemplate::encode(const Tokenizer& tokenizer, std::string_view rendering) const {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  std::vector<TokenId> ids = tokenizer.encode(rendering, {.add_begin = false, .parse_special = true});
  if (vocabulary.add_begin && vocabulary.begin && (ids.empty() || ids.front() != *vocabulary.begin)) {
    ids.insert(ids.begin(), *vocabulary.begin);
  }
  return ids;
}

TurnEnd ChatTemplate::turn_end(const Tokenizer& tokenizer) const {
  const ChatMessage conversation[] = {{"user", "QUESTION1"}, {"assistant", "ANSWER1"}, {"user", "QUESTION2"}};
  std::string text;
  try {
    text = render(conversation);
  } catch (const Error&) {
    return {};
  }
  const size_t answer = text.find("ANSWER1"), next = text.find("QUESTION2");
  if (answer == text.npos || next == text.npos || next < answer) return {};
  std::string_view between = std::string_view(text).substr(answer + 7, next - answer - 7);
  const std::vector<TokenId> ids = tokenizer.encode(trimmed(between), {.add_begin = false, .parse_special = true});
  if (!ids.empty()) {
    const PieceType type = tokenizer.vocabulary().types[static_cast<size_t>(ids[0])];
    if (type == PieceType::control || type == PieceType::user_defined) return {.token = ids[0]};
  }
  while (!between.empty() && is_space(between.back())) between.remove_suffix(1);
  return {.text = std::string(between)};
}

}  // namespace contexture
