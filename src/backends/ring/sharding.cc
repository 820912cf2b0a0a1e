#include "backends/ring/sharding.h"

#include <algorithm>
#include <cassert>
#include <tuple>

namespace contexture {

std::string_view name(Dealing dealing) {
  return dealing == Dealing::balanced ? "balanced" : "by position";
}

size_t held_by_position(size_t tokens, size_t rank, size_t ranks) {
  const size_t round = kDealtRun * ranks, rounds = tokens / round;
  const size_t place = rounds % 2 == 0 ? rank : ranks - 1 - rank;  // of the rank's run in the last round
  const size_t rest = tokens % round, before = std::min(rest, kDealtRun * place);
  return rounds * kDealtRun + std::min(rest - before, kDealtRun);
}

size_t most_held(size_t tokens, size_t ranks, Dealing dealing) {
  if (dealing == Dealing::balanced) return tokens / ranks + (tokens % ranks > 0 ? 1 : 0);
  const size_t round = kDealtRun * ranks;
  return tokens / round * kDealtRun + std::min(tokens % round, kDealtRun);
}

size_t most_in_step(size_t tokens, size_t sequences, size_t ranks, Dealing dealing) {
  if (ranks == 1) return tokens;
  const size_t more = dealing == Dealing::balanced ? 2 : 2 * kDealtRun;
  return std::min(tokens, tokens / ranks + more * sequences);
}

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

std::vector<size_t> Ownership::shares(size_t tokens) const {
  if (dealing_ == Dealing::balanced) return shares_of(tokens, held_, offset_);
  std::vector<size_t> shares(held_.size());
  for (size_t r = 0; r < shares.size(); ++r) {
    shares[r] = held_by_position(length_ + tokens, r, shares.size()) - held_[r];
  }
  return shares;
}

void Ownership::append_by_position(size_t tokens) {
  const size_t ranks = held_.size();
  while (tokens > 0) {
    const size_t run = length_ / kDealtRun, turn = run % (2 * ranks);
    const size_t rank = turn < ranks ? turn : 2 * ranks - 1 - turn;
    const size_t count = std::min(tokens, kDealtRun - length_ % kDealtRun);
    if (length_ % kDealtRun == 0) runs_.push_back({static_cast<int64_t>(length_), 0, static_cast<int>(rank)});
    runs_.back().count += count;
    held_[rank] += count;
    length_ += count;
    tokens -= count;
  }
}

void Ownership::append(size_t tokens) {
  if (dealing_ == Dealing::by_position) return append_by_position(tokens);
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
  if (!runs_.empty()) {  // by position a run may be cut
    OwnedRun& last = runs_.back();
    const size_t left = std::min(last.count, static_cast<size_t>(end - last.first));
    held_[static_cast<size_t>(last.rank)] -= last.count - left;
    last.count = left;
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
