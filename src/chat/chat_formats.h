#pragma once

#include <span>
#include <string_view>

namespace contexture {

/// How one family of models writes a conversation down, for model files that do not bring their own template.
struct ChatFormat {
  std::string_view name;
  std::string_view models;  ///< for people: who writes so
  std::string_view source;  ///< a Jinja template of `messages`, `bos_token`, `eos_token`, `add_generation_prompt`
};

std::span<const ChatFormat> chat_formats();

/// Null where there is none of this name.
const ChatFormat* find_chat_format(std::string_view name);

}  // namespace contexture
