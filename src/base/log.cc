#include "base/log.h"

#include <fcntl.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace contexture {

void set_log_level(int level) {
  static const auto logger = spdlog::stderr_color_mt("contexture");
  logger->set_pattern("%^%l%$: %v");
  logger->set_level(level >= 2 ? spdlog::level::debug : level == 1 ? spdlog::level::info : spdlog::level::warn);
  logger->set_error_handler([](const std::string&) {});  // as write_to_stderr
  spdlog::set_default_logger(logger);
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
