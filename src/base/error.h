#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>
#include <utility>

#include "contexture/error.h"

namespace contexture {

/// Throws Error with a formatted message: fail("{}: tensor {} is cut off; download the file again", path, name).
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// The same, where it is not the caller's mistake.
template <typename... Args>
[[noreturn]] void fail_as(ErrorKind kind, fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...), kind);
}

/// A stranger's text made fit for one line of an error: control bytes become '?', and it is cut after `limit` bytes.
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace contexture
