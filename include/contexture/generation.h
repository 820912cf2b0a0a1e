#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "contexture/export.h"

namespace contexture {

/// When a text ends, beside an end token and a full context.
struct Limits {
  size_t max_tokens = 512;             ///< generated ones
  std::vector<std::string> stop = {};  ///< it ends before the first of these texts
  bool ignore_end = false;             ///< end tokens are never chosen
};

/// What a text leaves behind, beside its tokens, to one that goes on with it: the two choose and show what one would
/// have.
struct Resume {
  uint64_t draws = 0;      ///< random numbers of the seed that are used up
  size_t open_tokens = 0;  ///< the last so many were not shown whole: a character or a stop text may go on
  size_t shown_bytes = 0;  ///< of their text
};

/// A token that was as good as chosen.
struct Alternative {
  int32_t id = 0;
  float log_probability = 0;  ///< natural, of the model's own distribution (before any filter)
};

/// A token as it is made. Text that was held back until the end comes last, with id -1.
struct GeneratedToken {
  int32_t id = 0;
  float log_probability = 0;  ///< as Alternative's
  std::string_view text;  ///< whole characters that it completes; empty while one is open, or a stop text may follow
  std::span<const Alternative> alternatives = {};  ///< the likeliest, itself among them where it is
};

enum class FinishReason : uint8_t {
  end,        ///< the model chose an end token
  stop,       ///< a stop text appeared
  length,     ///< Limits::max_tokens were made
  context,    ///< the context is full
  cancelled,  ///< it was cancelled, or the callback said so
};
CONTEXTURE_API std::string_view name(FinishReason reason);

/// What the cache held of a prompt already, and why not more.
struct PrefixReport {
  struct Difference {
    size_t position = 0;  ///< in the prompt, from 0
    int32_t held = 0;     ///< the token that the cache had there
    int32_t given = 0;    ///< the prompt's
    std::string held_text = {};
    std::string given_text = {};
  };
  size_t reused_tokens = 0;  ///< of the prompt
  size_t lost_tokens = 0;    ///< equal to the prompt's, but no longer held in the form that the next token must see: a
                             ///< mixed cache keeps the hot copy of the last tokens only
  std::optional<Difference> first_difference = {};  ///< nothing where no token held contradicts the prompt, whose last
                                                    ///< one is always run and not compared
};

/// What was made of a prompt.
struct Generation {
  std::string text;                      ///< without the prompt, the stop text and end tokens
  std::vector<int32_t> token_ids;        ///< generated ones; an end token is not among them
  std::vector<float> log_probabilities;  ///< one a token
  size_t prompt_tokens = 0;
  size_t prefilled_tokens = 0;   ///< of the prompt: those that had to be run, since the cache did not hold them
  size_t recomputed_tokens = 0;  ///< run again, because the cache was full and others came first
  PrefixReport prefix = {};
  Resume resume = {};      ///< for a text that goes on: with the first kept_tokens, then cut_text,
  size_t kept_tokens = 0;  ///< of the prompt and those generated: all, but where a stop text came up to the last one
  std::string cut_text;    ///< that was shown whole; and what was shown after it, the beginning of another token
  FinishReason finish_reason = FinishReason::length;
  double prefill_seconds = 0;
  double decode_seconds = 0;  ///< of all tokens but the first, which comes with the prefill
};

/// One message of a conversation.
struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;

  bool operator==(const ChatMessage&) const = default;
};

/// How a text's hidden states become one vector.
enum class Pooling : uint8_t {
  mean,  ///< of all tokens
  last,  ///< the last token's
};

}  // namespace contexture
