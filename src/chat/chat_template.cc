#include "chat/chat_template.h"

#include <algorithm>
#include <cctype>
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

/// The names by which transformers gives templates the special tokens that there are.
nlohmann::ordered_json special_tokens(const Vocabulary& vocabulary, const Metadata& metadata) {
  nlohmann::ordered_json tokens = nlohmann::ordered_json::object();
  const auto add = [&](const char* name, std::optional<int64_t> id) {
    if (!id || *id < 0 || static_cast<size_t>(*id) >= vocabulary.pieces.size()) return;
    tokens[name] = vocabulary.pieces[static_cast<size_t>(*id)];
  };
  const auto named = [&](const char* key) {
    return metadata.has(key) ? std::optional(metadata.get_int(key, INT64_MIN, INT64_MAX)) : std::nullopt;
  };
  add("bos_token", vocabulary.begin);
  add("eos_token", vocabulary.end);
  add("unk_token", vocabulary.unknown);
  add("sep_token", named("tokenizer.ggml.seperator_token_id"));  // so the field spells it
  add("pad_token", named("tokenizer.ggml.padding_token_id"));
  add("cls_token", named("tokenizer.ggml.cls_token_id"));
  add("mask_token", named("tokenizer.ggml.mask_token_id"));
  return tokens;
}

/// Roles that templates build control tokens of ("<|" ~ role ~ "|>"): as the templates' own words they are no content.
constexpr std::string_view kRoles[] = {"system", "developer", "user", "assistant", "tool", "function", "ipython"};

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

/// As folded(), of JSON: where both contents are texts.
void fold_system(nlohmann::ordered_json& messages) {
  if (messages[0]["role"] != "system" || !messages[0].contains("content") || !messages[0]["content"].is_string())
    return;
  const std::string system = messages[0]["content"].get<std::string>();
  for (size_t i = 1; i < messages.size(); ++i) {
    if (messages[i]["role"] != "user" || !messages[i].contains("content") || !messages[i]["content"].is_string())
      continue;
    if (!system.empty()) messages[i]["content"] = system + "\n\n" + messages[i]["content"].get<std::string>();
    messages.erase(0);
    return;
  }
}

}  // namespace

ChatTemplate::ChatTemplate(std::string_view source, const Vocabulary& vocabulary, const Metadata& metadata,
                           bool parse_special)
    : template_(source),
      tokens_(special_tokens(vocabulary, metadata).dump()),
      parse_special_(parse_special),
      typed_(find_typed()),
      takes_system_(takes_system()),
      guarded_(find_guarded(source, vocabulary)) {}

ChatTemplate ChatTemplate::choose(const Metadata& metadata, const Vocabulary& vocabulary, const std::string& format,
                                  bool parse_special) {
  if (!format.empty()) {
    const ChatFormat* found = find_chat_format(format);
    if (!found) fail("there is no chat format '{}'; choose one of {}", printable(format), format_names());
    return {found->source, vocabulary, metadata, parse_special};
  }
  const std::string source = metadata.get_string("tokenizer.chat_template", "");
  if (source.empty()) {
    fail("{} brings no chat template; name its format with --chat-format ({})", printable(metadata.origin(), 400),
         format_names());
  }
  return {source, vocabulary, metadata, parse_special};
}

/// With all that transformers passes where nobody asks for more. `content`: what came from outside.
Rendering ChatTemplate::render_json(const nlohmann::ordered_json& content, bool add_generation_prompt,
                                    const jinja::Bounds& bounds) const {
  nlohmann::ordered_json own = nlohmann::ordered_json::parse(tokens_);
  for (const char* name : {"tools", "documents"}) {
    if (!content.contains(name)) own[name] = nullptr;
  }
  own["add_generation_prompt"] = add_generation_prompt;
  const jinja::MarkedText text = template_.render(jinja::Variables{own, content, kRoles}, bounds);
  return {text.bytes(), text.content()};
}

/// A message with its text as a part, where the template wants it so.
nlohmann::ordered_json ChatTemplate::typed(const nlohmann::ordered_json& message) const {
  const bool is_system = message.value("role", "") == "system";
  const bool wants_parts = typed_ == Typed::all || (typed_ == Typed::all_but_system && !is_system);
  if (!wants_parts || !message.contains("content") || !message["content"].is_string()) return message;
  nlohmann::ordered_json parts = message;
  parts["content"] = nlohmann::ordered_json::array({{{"type", "text"}, {"text", message["content"]}}});
  return parts;
}

Rendering ChatTemplate::render_as_it_is(std::span<const ChatMessage> messages, bool add_generation_prompt,
                                        const jinja::Bounds& bounds) const {
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const ChatMessage& message : messages) {
    list.push_back(typed({{"role", message.role}, {"content", message.content}}));
  }
  return render_json({{"messages", std::move(list)}}, add_generation_prompt, bounds);
}

Rendering ChatTemplate::render(const ChatInput& input) const {
  nlohmann::ordered_json content = nlohmann::ordered_json::object();
  if (!input.variables.is_null()) content = input.variables;
  if (!content.is_object()) fail("variables of the chat template are no JSON object");
  const nlohmann::ordered_json own = nlohmann::ordered_json::parse(tokens_);
  for (const auto& [name, value] : content.items()) {
    if (name == "messages" || name == "tools" || name == "add_generation_prompt" || own.contains(name)) {
      fail("the chat template's variable {} is set by the conversation; leave it out", printable(name));
    }
  }
  if (!input.messages.is_array() || input.messages.empty()) fail("messages are no JSON array of at least one message");
  nlohmann::ordered_json list = nlohmann::ordered_json::array();
  for (const nlohmann::ordered_json& message : input.messages) {
    if (!message.is_object() || !message.contains("role") || !message["role"].is_string()) {
      fail("message {} is no object with a role", list.size());
    }
    list.push_back(message);
  }
  if (!takes_system_) fold_system(list);
  for (nlohmann::ordered_json& message : list) message = typed(message);
  content["messages"] = std::move(list);
  if (!input.tools.is_null()) content["tools"] = input.tools;
  return render_json(std::move(content), input.add_generation_prompt, {});
}

Rendering ChatTemplate::render(std::span<const ChatMessage> messages, bool add_generation_prompt) const {
  if (takes_system_) return render_as_it_is(messages, add_generation_prompt);
  const std::optional<std::vector<ChatMessage>> without_system = folded(messages);
  return render_as_it_is(without_system ? *without_system : messages, add_generation_prompt);
}

/// The text of a short conversation, which is little work.
std::string ChatTemplate::try_out(std::span<const ChatMessage> messages) const {
  return render_as_it_is(messages, /*add_generation_prompt=*/true, {.work = size_t{1} << 23, .seconds = 2}).text;
}

/// Found by a conversation whose messages would be seen. Most templates take strings; some read parts alone, and write
/// nothing of a string.
ChatTemplate::Typed ChatTemplate::find_typed() {
  // Digits, which no template writes otherwise.
  const ChatMessage messages[] = {{"system", "48170"}, {"user", "48171"}, {"assistant", "48172"}, {"user", "48173"}};
  const std::span<const ChatMessage> all(messages);
  bool leaves_out = false;
  for (const auto& conversation : {all, all.subspan(1), all.subspan(3)}) {
    std::optional<Typed> best;
    std::ptrdiff_t most = 0;
    for (const Typed typed : {Typed::none, Typed::all, Typed::all_but_system}) {
      typed_ = typed;
      std::string text;
      try {
        text = try_out(conversation);
      } catch (const Error&) {
        continue;
      }
      const auto is_seen = [&](const ChatMessage& m) {
        const size_t at = text.find(m.content);
        const bool is_quoted =
            typed != Typed::none && at != text.npos && at > 0 && (text[at - 1] == '\'' || text[at - 1] == '"');
        return at != text.npos && !is_quoted;  // quoted: as the list of parts
      };
      leaves_out |= !is_seen(conversation.back());
      const std::ptrdiff_t seen = std::count_if(conversation.begin(), conversation.end(), is_seen);
      if (!is_seen(conversation.back()) || seen <= most) continue;
      best = typed;
      most = seen;
    }
    if (best) return *best;
  }
  if (leaves_out) {
    fail(
        "the chat template leaves out what the user says, as text and as typed parts; name a format with "
        "--chat-format ({})",
        format_names());
  }
  return Typed::none;  // it refuses these conversations; perhaps not others
}

/// Found by a conversation whose system message would be seen.
bool ChatTemplate::takes_system() const {
  const ChatMessage conversation[] = {{"system", "SYSTEM1"}, {"user", "QUESTION1"}};
  try {
    return try_out(conversation).find("SYSTEM1") != std::string::npos;
  } catch (const Error&) {
    return false;
  }
}

/// Those in its source, and in what it writes around messages (from parts, perhaps). White space and words mark no
/// turn.
std::vector<TokenId> ChatTemplate::find_guarded(std::string_view source, const Vocabulary& vocabulary) const {
  std::vector<ChatMessage> conversation = {{"user", "QUESTION1"}, {"assistant", "ANSWER1"}, {"user", "QUESTION2"}};
  if (takes_system_) conversation.insert(conversation.begin(), {"system", "SYSTEM1"});
  const auto is_word = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) != 0; };
  std::string around(source);
  try {
    const Rendering rendering = render_as_it_is(conversation, /*add_generation_prompt=*/true);
    size_t from = 0;
    for (const ByteRange& range : rendering.content) {
      around += rendering.text.substr(from, range.begin - from) + '\0';
      from = range.end;
    }
    around += rendering.text.substr(from);
  } catch (const Error&) {  // it refuses this conversation; its source is what there is
  }
  std::vector<TokenId> guarded;
  for (size_t id = 0; id < vocabulary.pieces.size(); ++id) {
    const std::string& piece = vocabulary.pieces[id];
    if (vocabulary.types[id] != PieceType::user_defined || trimmed(piece).empty()) continue;
    if (is_word(piece.front()) || is_word(piece.back())) continue;
    if (around.find(piece) != around.npos) guarded.push_back(static_cast<TokenId>(id));
  }
  return guarded;
}

std::vector<TokenId> ChatTemplate::encode(const Tokenizer& tokenizer, const Rendering& rendering) const {
  const Vocabulary& vocabulary = tokenizer.vocabulary();
  std::vector<TokenId> ids = encode_rest(tokenizer, rendering, 0);
  if (vocabulary.add_begin && vocabulary.begin && (ids.empty() || ids.front() != *vocabulary.begin)) {
    ids.insert(ids.begin(), *vocabulary.begin);
  }
  return ids;
}

std::vector<TokenId> ChatTemplate::encode_rest(const Tokenizer& tokenizer, const Rendering& rendering,
                                               size_t from) const {
  std::vector<ByteRange> content;
  if (!parse_special_) content = part_of(rendering.content, from, rendering.text.size());
  return tokenizer.encode(std::string_view(rendering.text).substr(from),
                          {.add_begin = false, .parse_special = true, .content = content, .guarded = guarded_});
}

TurnEnd ChatTemplate::turn_end(const Tokenizer& tokenizer) const {
  const ChatMessage conversation[] = {{"user", "QUESTION1"}, {"assistant", "ANSWER1"}, {"user", "QUESTION2"}};
  std::string text;
  try {
    text = render(conversation).text;
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
