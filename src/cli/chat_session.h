#pragma once

#include <span>
#include <string>
#include <vector>

#include "contexture/contexture.h"

namespace contexture::cli {

/// Reads a conversation that write_session wrote, or that a stranger did. Throws Error where the file is none.
std::vector<ChatMessage> read_session(const std::string& path);

/// Writes a conversation as JSON, {"messages":[{"role","content"},...]}; the file is there whole or as it was.
void write_session(const std::string& path, std::span<const ChatMessage> messages);

}  // namespace contexture::cli
