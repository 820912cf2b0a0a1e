#pragma once

#include <spdlog/spdlog.h>

#include <iterator>
#include <utility>

namespace contexture {

/// 0: quiet, 1: info, 2: debug; to stderr. Warnings are always shown.
void set_log_level(int level);

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
