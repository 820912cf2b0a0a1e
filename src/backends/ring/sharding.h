#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace contexture {

/// How the tokens of a sequence are dealt to ranks.
enum class Dealing : uint8_t {
  balanced,     ///< each append in 2N chunks: no rank holds more than one token more than another
  by_position,  ///< runs of 64 positions in turn, there and back: no rank holds more than 64 tokens more
};
std::string_view name(Dealing dealing);
/// Where nobody chose: a sequence that is alone is spread evenly; sequences that keep company must not notice each
/// other.
constexpr Dealing dealing_of(size_t sequences) {
  return sequences > 1 ? Dealing::by_position : Dealing::balanced;
}

/// By position, who holds a token depends on where it is and on how many ranks there are: not on how the text came in
/// steps, nor on what else is in them, nor on which sequence it is. So what a rank computes of a sequence, and in which
/// order the parts come together, is what it is where the sequence is alone. Runs go to the ranks 0…N-1, N-1…0, 0…N-1,
/// and so on, so that each has early ones and late ones.
inline constexpr size_t kDealtRun = 64;  // positions
/// Of the first `tokens` of a sequence, those that a rank holds by position.
size_t held_by_position(size_t tokens, size_t rank, size_t ranks);

/// Balanced: load-balanced sharding ("Context Parallelism for Scalable Million-Token Inference", arXiv:2411.01783
/// §3.5.1): new tokens of a sequence are cut into 2N chunks, and rank i takes the chunks i and 2N-1-i. An early chunk
/// sees few tokens and a late one many, so that all ranks compute about as much, and hold as much.
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
size_t most_held(size_t tokens, size_t ranks, Dealing dealing);

/// Tokens that a rank has in a step of `tokens` of up to `sequences` sequences, at most. (By position, a part of a
/// sequence may begin with a rank's run, and where the turn goes back, with two of them.)
size_t most_in_step(size_t tokens, size_t sequences, size_t ranks, Dealing dealing);

/// Who holds which tokens of one sequence; the same at every rank. Numbers only.
class Ownership {
 public:
  Ownership(size_t ranks, size_t offset, Dealing dealing = Dealing::balanced)
      : dealing_(dealing), held_(ranks), offset_(offset) {}

  /// Gives the next `tokens` their places.
  void append(size_t tokens);
  /// How many of the next `tokens` each rank takes.
  std::vector<size_t> shares(size_t tokens) const;
  /// Forgets the last tokens, so that at most `length` are left; how many are. Balanced, a cut within an append would
  /// leave some ranks with whole chunks and others with none: all of that append goes.
  size_t truncate(size_t length);

  size_t length() const { return length_; }
  /// (ranks)
  std::span<const size_t> held() const { return held_; }
  int owner(int64_t position) const;
  /// Runs from the one that holds `position` on.
  std::span<const OwnedRun> from(int64_t position) const;

 private:
  void append_by_position(size_t tokens);

  Dealing dealing_;
  std::vector<size_t> held_;
  size_t offset_, length_ = 0;
  struct Append {
    int64_t begin, end;
  };
  std::vector<OwnedRun> runs_;   // by ascending position
  std::vector<Append> appends_;  // of more than one token; balanced only
};

}  // namespace contexture
