#pragma once

#include <fmt/format.h>

#include <iterator>
#include <optional>
#include <utility>

#include "contexture/log.h"

namespace contexture {

/// What a person asks for in numbers: 0 quiet (warnings are always shown), 1 info, 2 debug.
LogLevel log_level_of(int verbosity);

/// Whether messages of this level are shown on this thread: who has to work for one asks first.
bool logs(LogLevel level) noexcept;

/// One message, to the host's callback or stderr (contexture/log.h), whatever its level.
void log_message(LogLevel level, std::string_view message) noexcept;

template <typename... Args>
void log(LogLevel level, fmt::format_string<Args...> format, Args&&... args) noexcept {
  if (!logs(level)) return;
  try {
    fmt::memory_buffer text;
    fmt::format_to(std::back_inserter(text), format, std::forward<Args>(args)...);
    log_message(level, {text.data(), text.size()});
  } catch (...) {  // no memory for it
  }
}

template <typename... Args>
void log_debug(fmt::format_string<Args...> format, Args&&... args) noexcept {
  log(LogLevel::debug, format, std::forward<Args>(args)...);
}

template <typename... Args>
void log_info(fmt::format_string<Args...> format, Args&&... args) noexcept {
  log(LogLevel::info, format, std::forward<Args>(args)...);
}

template <typename... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) noexcept {
  log(LogLevel::warning, format, std::forward<Args>(args)...);
}

/// While it lives, this thread also makes messages of `least`: for one object that its user wants to hear more of. What
/// others make stays as the host chose it.
class MoreTalkative {
 public:
  explicit MoreTalkative(LogLevel least) noexcept;
  ~MoreTalkative();
  MoreTalkative(const MoreTalkative&) = delete;
  MoreTalkative& operator=(const MoreTalkative&) = delete;

 private:
  std::optional<LogLevel> before_;
};

/// For main, before anything is opened: standard streams that are closed become /dev/null. The next file opened would
/// take their number, and what is said on stderr would be written into it.
void open_standard_streams() noexcept;

/// Writes to stderr. What cannot be written there (the disk is full, nobody reads) is passed over: a remark is not
/// worth the work that it is about.
void write_to_stderr(const char* text, size_t size) noexcept;

/// A remark for people: fmt::print to stderr that never throws.
template <typename... Args>
void tell(fmt::format_string<Args...> format, Args&&... args) noexcept {
  try {
    fmt::memory_buffer text;
    fmt::format_to(std::back_inserter(text), format, std::forward<Args>(args)...);
    write_to_stderr(text.data(), text.size());
  } catch (...) {  // no memory for it
  }
}

}  // namespace contexture
