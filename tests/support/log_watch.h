#pragma once

#include <mutex>
#include <string>

#include "contexture/log.h"

namespace contexture {

/// What is logged while this lives, a line a message; all that is no detail.
class LogWatch {
 public:
  LogWatch() {
    set_log([this](LogLevel, std::string_view message) {
      const std::lock_guard lock(mutex_);
      (text_ += message) += '\n';
    });
    set_log_level(LogLevel::info);
  }
  ~LogWatch() {
    set_log({});
    set_log_level(LogLevel::warning);
  }
  std::string text() const {
    const std::lock_guard lock(mutex_);
    return text_;
  }

 private:
  mutable std::mutex mutex_;
  std::string text_;
};

}  // namespace contexture
