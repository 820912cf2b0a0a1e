#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace contexture {

/// Watches a stream of text for stop texts, and holds back what may be the beginning of one.
class StopMatcher {
 public:
  explicit StopMatcher(std::vector<std::string> stops);

  /// The text that is now certain to come before any stop text.
  std::string push(std::string_view text);
  /// A stop text appeared; push gave what came before it.
  bool stopped() const { return stopped_; }
  /// What was held back, at the end of the stream.
  std::string finish();

 private:
  std::vector<std::string> stops_;  // none empty
  std::string held_;
  bool stopped_ = false;
};

}  // namespace contexture
