#include "cli/chat_session.h"

#include "base/atomic_file.h"
#include "base/error.h"
#include "base/json.h"
#include "cli/command.h"

namespace contexture::cli {

std::vector<ChatMessage> read_session(const std::string& path) {
  const nlohmann::json session = parse_json(read_text(path), path, "it is no whole conversation that /save wrote");
  const auto refuse = [&](std::string_view what) {
    fail("{}: {}; it is no conversation that /save wrote", printable(path, 400), what);
  };
  if (!session.is_object() || !session.contains("messages") || !session["messages"].is_array()) {
    refuse("there is no list \"messages\"");
  }
  std::vector<ChatMessage> messages;
  for (const nlohmann::json& entry : session["messages"]) {
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

void write_session(const std::string& path, std::span<const ChatMessage> messages) {
  Json list = Json::array();
  for (const ChatMessage& message : messages) {
    list.push_back({{"role", message.role}, {"content", valid_utf8(message.content)}});
  }
  const std::string text = Json{{"messages", std::move(list)}}.dump(1) + "\n";
  AtomicFile file(path, FileAccess::owner_only);
  file.write(std::as_bytes(std::span(text)));
  file.publish();
}

}  // namespace contexture::cli
