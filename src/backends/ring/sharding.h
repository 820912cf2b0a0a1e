#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace contexture {

/// Load-balanced sharding ("Context Parallelism for Scalable Million-Token Inference", arXiv:2411.01783 §3.5.1): new
/// tokens of a sequence are cut into 2N chunks, and rank i takes the chunks i and 2N-1-i. An early chunk sees few
/// tokens and a late one many, so that all ranks compute about as much, and hold as much.
///
/// Nothing is padded: what the tokens leave over 2N goes to the ranks that hold least, at most one to a chunk. Where
/// two hold alike, the one comes first that comes first from rank `offset` on, the number of the sequence: single
/// tokens (decode, Alg. 4) so go round the ranks, and those of several sequences not all to the same one.
///
/// If what the ranks hold differs by at most one token before, it does so after.

/// A run of tokens that one rank holds.
struct OwnedRun {
  int64_t first = 0;  // absolute position
  size_t count = 0;
  int rank = 0;
  bool operator==(const OwnedRun&) const = default;
};

/// How many of `tokens` new ones each rank takes; held (ranks).
std::vector<size_t> shares_of(size_t tokens, std::span<const size_t> held, size_t offset);

/// The chunks of `tokens` new tokens from position `first` on, by ascending position, empty ones left out.
std::vector<OwnedRun> shard(int64_t first, size_t tokens, std::span<const size_t> held, size_t offset);

/// Tokens of a rank, at most, of `tokens` of one sequence.
inline size_t most_held(size_t tokens, size_t ranks) {
  return tokens / ranks + (tokens % ranks > 0 ? 1 : 0);
}

/// Tokens that a rank has in a step of `tokens` of up to `sequences` sequences, at most.
inline size_t most_in_step(size_t tokens, size_t sequences, size_t ranks) {
  return ranks == 1 ? tokens : tokens / ranks + 2 * sequences;
}

/// Who holds which tokens of one sequence; the same at every rank. Numbers only.
class Ownership {
 public:
  Ownership(size_t ranks, size_t offset) : held_(ranks), offset_(offset) {}

  /// Gives the next `tokens` their places.
  void append(size_t tokens);
  /// Forgets the last tokens, so that at most `length` are left; how many are. A cut within an append would leave some
  /// ranks with whole chunks and others with none: all of that append goes.
  size_t truncate(size_t length);

  size_t length() const { return length_; }
  size_t offset() const { return offset_; }
  /// (ranks)
  std::span<const size_t> held() const { return held_; }
  int owner(int64_t position) const;
  /// Runs from the one that holds `position` on.
  std::span<const OwnedRun> from(int64_t position) const;

 private:
  std::vector<size_t> held_;
  size_t offset_, length_ = 0;
  struct Append {
    int64_t begin, end;
  };
  std::vector<OwnedRun> runs_;   // by ascending position
  std::vector<Append> appends_;  // of more than one token
};

}  // namespace contexture
