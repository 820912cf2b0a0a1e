#pragma once

#include <span>
#include <string>

#include "cache/books.h"
#include "contexture/generation.h"
#include "text/tokenizer.h"

namespace contexture {

/// Gives an empty sequence what the books hold of these tokens under its key. Tells how many, and where what else they
/// hold goes another way; with the texts of the tokens, where there is a tokenizer.
PrefixReport adopt_prefix(Books& books, SequenceId sequence, const Tokenizer* tokenizer,
                          std::span<const TokenId> tokens, uint64_t key);

/// Where a prompt leaves what is held of it: nothing where one begins with the other, or where all that differs is the
/// prompt's last token, which is run anyway.
std::optional<PrefixReport::Difference> first_difference(const Tokenizer& tokenizer, std::span<const TokenId> held,
                                                         std::span<const TokenId> prompt);

/// What was reused of the prompt, where it was not, and what that cost: one line for people.
std::string explain_prefix(const Generation& generation);

}  // namespace contexture
