#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace contexture {

/// `contexture ARGUMENTS` in a terminal of its own, as a person sees it. What is typed is not echoed.
class Terminal {
 public:
  explicit Terminal(const std::vector<std::string>& arguments);
  ~Terminal();
  Terminal(const Terminal&) = delete;
  Terminal& operator=(const Terminal&) = delete;

  /// Bytes as keys: "\r" is Enter, "\x03" Ctrl-C, "\x04" Ctrl-D.
  void type(const std::string& keys) const;
  /// Reads until `text` shows up, a minute at most, and forgets what came up to there. False where it does not.
  bool wait_for(const std::string& text);
  /// Reads until anything at all shows up since then.
  bool wait_for_anything();
  /// Waits for its end; as a shell gives it, 128 + signal where one ended it.
  int status();

 private:
  bool read_more();

  pid_t child_ = -1;
  int terminal_ = -1;
  std::string shown_;
};

}  // namespace contexture
