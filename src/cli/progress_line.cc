#include "cli/progress_line.h"

#include <unistd.h>

#include "base/log.h"

namespace contexture::cli {

ProgressLine::ProgressLine(std::string_view doing, std::string_view unit, size_t least)
    : doing_(doing), unit_(unit), least_(least), terminal_(isatty(STDERR_FILENO)) {}

void ProgressLine::show(size_t done, size_t total) {
  if (!terminal_ || total < least_) return;
  if (done == total) return clear();
  tell("\r{}: {} of {} {}", doing_, done, total, unit_);
  shown_ = true;
}

void ProgressLine::clear() {
  if (!shown_) return;
  tell("\r\x1b[K");
  shown_ = false;
}

}  // namespace contexture::cli
