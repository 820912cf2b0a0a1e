#pragma once

#include <cstddef>

namespace contexture::cli {

/// How far the reading of a long prompt is: a line on stderr that goes away, where stderr is a terminal.
class PrefillProgress {
 public:
  PrefillProgress();
  ~PrefillProgress() { clear(); }
  PrefillProgress(const PrefillProgress&) = delete;
  PrefillProgress& operator=(const PrefillProgress&) = delete;

  void show(size_t done, size_t total);
  /// For before anything else is written.
  void clear();

 private:
  bool terminal_;
  bool shown_ = false;
};

}  // namespace contexture::cli
