#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <vector>

#include "contexture/generation.h"
#include "engine/stop_matcher.h"
#include "text/tokenizer.h"

namespace contexture {

/// The text of a sequence of tokens as a reader sees it: whole characters only, and nothing of a stop text. It can be
/// cut at any token and gone on with: what both show is what one would have shown.
class ShownText {
 public:
  /// `prompt`: the tokens before the first that is pushed. `from`: what was not shown of them, where they end with a
  /// text that goes on. Throws Error where it cannot be of these tokens. The tokenizer must outlive this.
  ShownText(const Tokenizer& tokenizer, std::span<const TokenId> prompt, std::vector<std::string> stops,
            const Resume& from);

  /// The text that this token makes certain.
  std::string push(TokenId id);
  /// A stop text appeared; push gave what came before it.
  bool stopped() const { return stops_.stopped(); }
  /// The rest, at the end of the text.
  std::string finish();

  /// The tokens, the prompt's included, up to the last that was shown whole, and what was shown after it.
  struct Cut {
    size_t tokens;
    std::string text;
  };
  Cut cut() const { return {borders_.front().tokens, text_.substr(0, shown_)}; }

 private:
  /// A place between two tokens at which no character is open.
  struct Border {
    size_t tokens;
    size_t bytes;  // of text_
  };
  void add(TokenId id, std::string& decoded);

  StreamDecoder decoder_;
  StopMatcher stops_;
  size_t tokens_;                // pushed, and the prompt's
  std::vector<Border> borders_;  // from the last at which all was shown, in rising order
  std::string text_;             // of the tokens after the first border
  size_t shown_ = 0;             // bytes of text_
  std::string ready_;            // to be shown with the next token: an earlier run held it back for another stop text
};

}  // namespace contexture
