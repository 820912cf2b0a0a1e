#pragma once

#include <span>
#include <string>

#include "cache/cache.h"
#include "contexture/contexture.h"
#include "text/tokenizer.h"

namespace contexture {

/// Gives an empty sequence what the cache holds of these tokens, all but the last one: that must be run, for its
/// logits. Tells how many, and where what else the cache holds goes another way.
PrefixReport adopt_prefix(Cache& cache, SequenceId sequence, const Tokenizer& tokenizer,
                          std::span<const TokenId> tokens);

/// Where a prompt leaves what is held of it: nothing where one begins with the other, or where all that differs is the
/// prompt's last token, which is run anyway.
std::optional<PrefixReport::Difference> first_difference(const Tokenizer& tokenizer, std::span<const TokenId> held,
                                                         std::span<const TokenId> prompt);

/// What was reused of the prompt, where it was not, and what that cost: one line for people.
std::string explain_prefix(const Generation& generation);

}  // namespace contexture
