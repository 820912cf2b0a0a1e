#include "backends/ring/sharding.h"

#include <algorithm>
#include <cassert>
#include <tuple>

namespace contexture {

std::vector<size_t> shares_of(size_t tokens, std::span<const size_t> held, size_t offset) {
  const size_t ranks = held.size(), chunk = tokens / (2 * ranks);
  std::vector<size_t> shares(ranks, 2 * chunk);
  for (size_t left = tokens % (2 * ranks); left > 0; --left) {
    size_t least = ranks;
    const auto key = [&](size_t r) {
      return std::tuple(held[r] + shares[r], shares[r], (r + ranks - offset % ranks) % ranks);
    };
    for (size_t r = 0; r < ranks; ++r) {
      if (shares[r] < 2 * chunk + 2 && (least == ranks || key(r) < key(least))) least = r;
    }
    ++shares[least];
  }
  return shares;
}

std::vector<OwnedRun> shard(int64_t first, size_t tokens, std::span<const size_t> held, size_t offset) {
  const std::vector<size_t> shares = shares_of(tokens, held, offset);
  const size_t ranks = held.size();
  std::vector<OwnedRun> runs;
  for (size_t chunk = 0; chunk < 2 * ranks; ++chunk) {
    const size_t rank = chunk < ranks ? chunk : 2 * ranks - 1 - chunk;
    const size_t count = chunk < ranks ? shares[rank] - shares[rank] / 2 : shares[rank] / 2;
    if (count == 0) continue;
    if (!runs.empty() && runs.back().rank == static_cast<int>(rank)) {
      runs.back().count += count;  // the last rank's two chunks are neighbours
    } else {
      runs.push_back({first, count, static_cast<int>(rank)});
    }
    first += static_cast<int64_t>(count);
  }
  return runs;
}

void Ownership::append(size_t tokens) {
  const int64_t first = static_cast<int64_t>(length_);
  if (tokens > 1) appends_.push_back({first, first + static_cast<int64_t>(tokens)});
  for (const OwnedRun& run : shard(first, tokens, held_, offset_)) {
    held_[static_cast<size_t>(run.rank)] += run.count;
    runs_.push_back(run);
  }
  length_ += tokens;
}

size_t Ownership::truncate(size_t length) {
  assert(length <= length_);
  int64_t end = static_cast<int64_t>(length);
  while (!appends_.empty() && appends_.back().end > end) {
    end = std::min(end, appends_.back().begin);
    appends_.pop_back();
  }
  for (; !runs_.empty() && runs_.back().first >= end; runs_.pop_back()) {
    held_[static_cast<size_t>(runs_.back().rank)] -= runs_.back().count;
  }
  return length_ = static_cast<size_t>(end);
}

std::span<const OwnedRun> Ownership::from(int64_t position) const {
  const auto beyond = std::upper_bound(runs_.begin(), runs_.end(), position,
                                       [](int64_t p, const OwnedRun& run) { return p < run.first; });
  return {beyond == runs_.begin() ? beyond : beyond - 1, runs_.end()};
}

int Ownership::owner(int64_t position) const {
  assert(position >= 0 && position < static_cast<int64_t>(length_));
  return from(position).front().rank;
}

}  // namespace contexture
