#include "engine/text.h"

#include "base/error.h"

namespace contexture {

TextLimits limits_of(const Capacities& capacities) {
  return {.context = capacities.context, .vocabulary = capacities.vocabulary, .longer = capacities.longer};
}

void check_prompt(const TextLimits& limits, std::span<const TokenId> prompt) {
  if (prompt.empty()) fail("the prompt is empty and this model has no begin token; give a prompt with -p");
  if (prompt.size() > limits.context) {
    fail_as(ErrorKind::too_long, "the prompt has {} tokens and the context {}; {} or shorten it", prompt.size(),
            limits.context, limits.longer);
  }
  for (const TokenId id : prompt) {
    if (id < 0 || static_cast<size_t>(id) >= limits.vocabulary) {
      fail("token {} is outside the model's vocabulary of {}; is this its tokenizer?", id, limits.vocabulary);
    }
  }
}

}  // namespace contexture
