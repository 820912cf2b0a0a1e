#include "cli/chat_session.h"

#include <limits>

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"

namespace contexture::cli {
namespace {

class SessionReader {
 public:
  SessionReader(const nlohmann::json& json, const std::string& name) : json_(json), name_(name) {}

  ChatSession read() const {
    ChatSession session;
    session.conversation.messages = messages();
    if (json_.contains("turns")) session.conversation.turns = whole_number(json_["turns"], "turns");
    if (json_.contains("seed")) session.seed = whole_number(json_["seed"], "seed");
    if (json_.contains("token_ids")) session.conversation.token_ids = token_ids();
    if (json_.contains("fingerprint")) session.conversation.fingerprint = fingerprint();
    return session;
  }

 private:
  [[noreturn]] void refuse(std::string_view what) const {
    fail("{}: {}; it is no conversation that /save wrote", printable(name_, 400), what);
  }

  std::vector<ChatMessage> messages() const {
    if (!json_.is_object() || !json_.contains("messages") || !json_["messages"].is_array()) {
      refuse("there is no list \"messages\"");
    }
    std::vector<ChatMessage> messages;
    for (const nlohmann::json& entry : json_["messages"]) {
      const auto text = [&](const char* key) {
        if (!entry.is_object() || !entry.contains(key) || !entry[key].is_string()) {
          refuse(fmt::format("message {} has no text \"{}\"", messages.size() + 1, key));
        }
        return entry[key].get<std::string>();
      };
      ChatMessage message{text("role"), text("content")};
      const bool known = message.role == "user" || message.role == "assistant";
      if (!known && !(message.role == "system" && messages.empty())) {
        refuse(fmt::format("message {} is of the role '{}'", messages.size() + 1, printable(message.role)));
      }
      messages.push_back(std::move(message));
    }
    if (!messages.empty() && messages.back().role == "user") messages.pop_back();  // it waits for an answer: ask again
    return messages;
  }

  std::string fingerprint() const {
    if (!json_["fingerprint"].is_string()) refuse("\"fingerprint\" is no text");
    return json_["fingerprint"].get<std::string>();
  }

  uint64_t whole_number(const nlohmann::json& value, std::string_view key) const {
    if (!value.is_number_unsigned()) refuse(fmt::format("\"{}\" is no whole number from 0 on", key));
    return value.get<uint64_t>();
  }

  std::vector<TokenId> token_ids() const {
    if (!json_["token_ids"].is_array()) refuse("\"token_ids\" is no list");
    std::vector<TokenId> ids;
    for (const nlohmann::json& id : json_["token_ids"]) {
      const uint64_t number = whole_number(id, "token_ids");
      if (number > uint64_t{std::numeric_limits<TokenId>::max()}) refuse("\"token_ids\" holds what is no id");
      ids.push_back(static_cast<TokenId>(number));
    }
    return ids;
  }

  const nlohmann::json& json_;
  const std::string& name_;
};

}  // namespace

Json as_json(const ChatSession& session) {
  Json messages = Json::array();
  for (const ChatMessage& message : session.conversation.messages) {
    messages.push_back({{"role", message.role}, {"content", valid_utf8(message.content)}});
  }
  Json json = {{"messages", std::move(messages)}, {"turns", session.conversation.turns}};
  if (session.seed) json["seed"] = *session.seed;
  if (!session.conversation.token_ids.empty()) {
    json["token_ids"] = session.conversation.token_ids;
    json["fingerprint"] = session.conversation.fingerprint;
  }
  return json;
}

ChatSession chat_session_of(const nlohmann::json& json, const std::string& name) {
  return SessionReader(json, name).read();
}

ChatSession read_chat_session(const std::string& path) {
  return chat_session_of(parse_json(read_text(path), path, "it is no whole conversation that /save wrote"), path);
}

void write_chat_session(const std::string& path, const ChatSession& session) {
  const std::string text = as_json(session).dump(1) + "\n";
  AtomicFile file(path_to_write(path), FileAccess::owner_only);
  file.write(std::as_bytes(std::span(text)));
  file.publish();
}

}  // namespace contexture::cli
