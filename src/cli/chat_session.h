#pragma once

#include <optional>
#include <string>

#include "cli/command.h"
#include "engine/conversation.h"

namespace contexture::cli {

/// A conversation and the seed of its answers.
struct ChatSession {
  SavedConversation conversation = {};
  std::optional<uint64_t> seed = {};
};

/// {"messages":[{"role","content"},...], "turns", "seed", "token_ids":[...], "fingerprint"}, of which only the messages
/// must be there.
Json as_json(const ChatSession& session);
/// Throws Error where it is none; `name` is the file's.
ChatSession chat_session_of(const nlohmann::json& json, const std::string& name);

/// Reads a conversation that write_chat_session wrote, or that a stranger did. Throws Error where the file is none.
ChatSession read_chat_session(const std::string& path);

/// Writes a conversation as JSON, for its owner alone; the file is there whole or as it was.
void write_chat_session(const std::string& path, const ChatSession& session);

}  // namespace contexture::cli
