#pragma once

#include <cstddef>
#include <string_view>

namespace contexture::cli {

/// How far the reading of a long prompt or text is: a line on stderr that goes away, where stderr is a terminal.
class PrefillProgress {
 public:
  explicit PrefillProgress(std::string_view doing = "reading the prompt");
  ~PrefillProgress() { clear(); }
  PrefillProgress(const PrefillProgress&) = delete;
  PrefillProgress& operator=(const PrefillProgress&) = delete;

  void show(size_t done, size_t total);
  /// For before anything else is written.
  void clear();

 private:
  std::string_view doing_;
  bool terminal_;
  bool shown_ = false;
};

}  // namespace contexture::cli
