#include "cli/prefill_progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cstdio>

namespace contexture::cli {

PrefillProgress::PrefillProgress(std::string_view doing) : doing_(doing), terminal_(isatty(STDERR_FILENO)) {}

void PrefillProgress::show(size_t done, size_t total) {
  if (!terminal_ || total < 1024) return;
  if (done == total) return clear();
  fmt::print(stderr, "\r{}: {} of {} tokens", doing_, done, total);
  std::fflush(stderr);
  shown_ = true;
}

void PrefillProgress::clear() {
  if (!shown_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
  shown_ = false;
}

}  // namespace contexture::cli
