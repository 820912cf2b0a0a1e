#include "cli/progress_line.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace contexture::cli {

ProgressLine::ProgressLine(std::string_view doing, std::string_view unit, size_t least)
    : doing_(doing), unit_(unit), least_(least), terminal_(isatty(STDERR_FILENO)) {}

void ProgressLine::show(size_t done, size_t total) {
  if (!terminal_ || total < least_) return;
  if (done == total) return clear();
  fmt::print(stderr, "\r{}: {} of {} {}", doing_, done, total, unit_);
  std::fflush(stderr);
  shown_ = true;
}

void ProgressLine::clear() {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace contexture::cli
