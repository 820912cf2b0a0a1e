#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "text/vocabulary.h"

/// The readers behind vocabulary_from_bytes, a file each; the bytes they expect are described at their top.
namespace contexture {

bool is_llama2c_vocabulary(std::span<const std::byte> bytes);
Vocabulary read_llama2c_vocabulary(std::span<const std::byte> bytes, const std::string& name, int64_t vocabulary_size);

bool is_executorch_vocabulary(std::span<const std::byte> bytes);
Vocabulary read_executorch_vocabulary(std::span<const std::byte> bytes, const std::string& name);

bool is_tiktoken_vocabulary(std::span<const std::byte> bytes);
/// `expected_ranks`: Llama 3's, or 0 for any number (tests).
inline constexpr size_t kLlama3Ranks = 128'000;
Vocabulary read_tiktoken_vocabulary(std::span<const std::byte> bytes, const std::string& name,
                                    size_t expected_ranks = kLlama3Ranks);

bool is_sentencepiece_vocabulary(std::span<const std::byte> bytes);
Vocabulary read_sentencepiece_vocabulary(std::span<const std::byte> bytes, const std::string& name);

bool is_huggingface_vocabulary(std::span<const std::byte> bytes);
Vocabulary read_huggingface_vocabulary(std::span<const std::byte> bytes, const std::string& name);

/// Whether a piece is called like a byte, as "<0x0A>" is.
bool is_byte_name(std::string_view piece);

/// More pieces than any vocabulary has (the largest known are around a million). Readers check it as they go, so that a
/// hostile file cannot make them allocate many times its size.
inline constexpr size_t kMaxPieces = size_t{1} << 22;
void check_piece_count(size_t count, const std::string& name);

/// Sets `scores` from `merges`, for those who merge by score: minus the best rank of the merges into a piece.
void score_by_merges(Vocabulary& vocabulary);

/// Sets `end_tokens`: `end`, and every special piece whose name is known to end a turn or a text.
void collect_end_tokens(Vocabulary& vocabulary);

}  // namespace contexture
