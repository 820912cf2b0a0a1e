#include "base/log.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <memory>
#include <mutex>

namespace contexture {
namespace {

std::atomic<LogLevel> least_level{LogLevel::warning};
thread_local std::optional<LogLevel> least_level_here;

struct Callback {
  std::mutex mutex;
  std::shared_ptr<const LogCallback> now;  // null: stderr
};

/// Never destroyed: threads may log while the process ends.
Callback& callback() {
  static Callback& only = *new Callback;
  return only;
}

/// "warning: " and the like, in colour where a person reads it.
void write_line_to_stderr(LogLevel level, std::string_view message) {
  struct Look {
    std::string_view name, colour;
  };
  static constexpr Look looks[] = {{"debug", "\x1b[36m"}, {"info", "\x1b[32m"}, {"warning", "\x1b[33m\x1b[1m"}};
  static const bool coloured = isatty(STDERR_FILENO);
  const Look& look = looks[static_cast<size_t>(level)];
  // One write a line, so that lines of several threads do not mingle.
  fmt::memory_buffer line;
  if (coloured) line.append(look.colour);
  line.append(look.name);
  if (coloured) line.append(std::string_view("\x1b[m"));
  line.append(std::string_view(": "));
  line.append(message);
  line.push_back('\n');
  write_to_stderr(line.data(), line.size());
}

}  // namespace

void set_log(LogCallback given) {
  auto next = given ? std::make_shared<const LogCallback>(std::move(given)) : nullptr;
  Callback& c = callback();
  const std::lock_guard lock(c.mutex);
  c.now.swap(next);
}

void set_log_level(LogLevel least) {
  least_level = least;
}

LogLevel log_level_of(int verbosity) {
  return verbosity >= 2 ? LogLevel::debug : verbosity == 1 ? LogLevel::info : LogLevel::warning;
}

bool logs(LogLevel level) noexcept {
  return level >= least_level || (least_level_here && level >= *least_level_here);
}

void log_message(LogLevel level, std::string_view message) noexcept {
  try {
    std::shared_ptr<const LogCallback> to;
    {
      Callback& c = callback();
      const std::lock_guard lock(c.mutex);
      to = c.now;
    }
    // Outside the lock: the callback may wait for a thread of the host that logs too.
    to ? (*to)(level, message) : write_line_to_stderr(level, message);
  } catch (...) {
  }
}

MoreTalkative::MoreTalkative(LogLevel least) noexcept : before_(least_level_here) {
  least_level_here = std::min(least, before_.value_or(least));
}

MoreTalkative::~MoreTalkative() {
  least_level_here = before_;
}

void open_standard_streams() noexcept {
  for (const int descriptor : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
    if (fcntl(descriptor, F_GETFD) >= 0 || errno != EBADF) continue;
    (void)!open("/dev/null", O_RDWR);  // takes the lowest number that is free: this one
  }
}

void write_to_stderr(const char* text, size_t size) noexcept {
  (void)!std::fwrite(text, 1, size, stderr);
  std::fflush(stderr);
}

}  // namespace contexture
