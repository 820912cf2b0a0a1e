#pragma once

#include <fmt/format.h>

#include <stdexcept>
#include <string>

namespace contexture {

/// What stops the work: a corrupt file, an impossible plan. The message says what, where and how to mend it, on one
/// line; the command line prints it and exits 1. Expected outcomes are returned instead, mistakes of the program are
/// assertions (docs/architecture.md, "Errors").
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Throws Error with a formatted message: fail("{}: tensor {} is cut off; download the file again", path, name).
template <typename... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

/// A stranger's text made fit for one line of an error: control bytes become '?', and it is cut after `limit` bytes.
std::string printable(std::string_view text, size_t limit = 80);

}  // namespace contexture
