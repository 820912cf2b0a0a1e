#pragma once

#include <cstddef>
#include <string_view>

namespace contexture::cli {

/// How far something that takes long is: a line on stderr that goes away, where stderr is a terminal.
class ProgressLine {
 public:
  /// "reading the prompt: 512 of 2048 tokens"; nothing is said of fewer than `least`.
  explicit ProgressLine(std::string_view doing = "reading the prompt", std::string_view unit = "tokens",
                        size_t least = 1024);
  ~ProgressLine() { clear(); }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(size_t done, size_t total);
  /// For before anything else is written.
  void clear();

 private:
  std::string_view doing_, unit_;
  size_t least_;
  bool terminal_;
  bool shown_ = false;
};

}  // namespace contexture::cli
