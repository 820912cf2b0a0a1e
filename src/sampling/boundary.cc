#include "sampling/boundary.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <span>
#include <utility>

namespace contexture {
namespace {

constexpr float kInfinite = std::numeric_limits<float>::infinity();
// A sample, and how many of its elements the place is seldom further away than from where the sample has it.
struct SampleSize {
  size_t count, aside;
};
constexpr SampleSize kLarge{512, 32}, kSmall{128, 16};
constexpr size_t kManyElements = 32768;  // of which a pass costs more than the large one
constexpr size_t kSelected = 256;        // elements that are taken one by one
constexpr int kMostPasses = 24;          // a row that no sample fits is sorted as it is then

/// What is left to search: the elements with low ≤ key ≤ high.
struct Region {
  WeightedRow row;
  float low, high;
  double above;  // the sum of weights over `high`
  double total;  // of weights in here

  size_t index(size_t i) const { return row.index ? static_cast<size_t>(row.index[i]) : i; }
  float weight(size_t i) const { return row.weight ? row.weight[i] : 1; }
};

struct Range {
  float low, high;
};

struct Entry {
  float key, weight;
  size_t index;
  bool operator<(const Entry& other) const { return key != other.key ? key > other.key : index < other.index; }
};

struct Selected {
  size_t place;
  double reached;  // this one's weight included
};

/// Where, in a sorted order, the sum of weights and of `reached` exceeds the mass; the last where it never does. The
/// entry is there then, what comes before it before it, and the rest after it: std::nth_element by weights.
Selected select(std::span<Entry> entries, double reached, double mass) {
  size_t begin = 0, end = entries.size();
  while (end - begin > 1) {
    Entry& middle = entries[begin + (end - begin) / 2];
    const Entry pivot = middle;
    std::swap(middle, entries[begin]);  // out of the way: a partition would move it
    const auto first = entries.begin() + static_cast<ptrdiff_t>(begin) + 1;
    const auto turn =
        std::partition(first, entries.begin() + static_cast<ptrdiff_t>(end), [&](const Entry& e) { return e < pivot; });
    double before = reached;
    for (auto e = first; e != turn; ++e) before += e->weight;
    const auto place = static_cast<size_t>(turn - entries.begin()) - 1;
    std::swap(entries[begin], entries[place]);
    if (before > mass) {
      end = place;
    } else if (before + pivot.weight > mass || place + 1 == entries.size()) {
      return {place, before + pivot.weight};
    } else {
      reached = before + pivot.weight;
      begin = place + 1;
    }
  }
  return {begin, reached + entries[begin].weight};
}

/// Keys between which the place probably is. Where that seems to be all of the region, one key, out of the middle.
Range guess_range(const Region& region, double mass) {
  const auto [count, aside] = region.row.count < kManyElements ? kSmall : kLarge;
  std::array<Entry, kLarge.count> room;
  const std::span<Entry> sample = std::span(room).first(count);
  double sampled = 0;
  for (size_t s = 0; s < count; ++s) {
    const size_t i = s * region.row.count / count;
    sample[s] = {region.row.key[i], region.weight(i), s};
    sampled += sample[s].weight;
  }
  // A sample does not see the few that weigh most: what is missing in it is theirs.
  const double times = static_cast<double>(region.row.count) / static_cast<double>(count);
  const double unseen = std::max(0.0, region.total - times * sampled);
  const double wanted = (mass - region.above - unseen) / (region.total - unseen) * sampled;
  const size_t rank = sampled > 0 ? select(sample, 0, std::max(0.0, wanted)).place : 0;
  const float middle = sample[rank].key;
  Range range{region.low, region.high};
  const auto key_at = [](std::span<Entry> part, size_t place) {
    std::nth_element(part.begin(), part.begin() + static_cast<ptrdiff_t>(place), part.end());
    return part[place].key;
  };
  if (rank >= 2 * aside) range.high = key_at(sample.first(rank), rank - aside);
  if (rank + aside < count) range.low = key_at(sample.subspan(rank), aside);
  const auto is_inside = [&](const Entry& e) { return e.key >= range.low && e.key <= range.high; };
  return std::ranges::all_of(sample, is_inside) ? Range{middle, middle} : range;
}

/// The region is what lies in the range now. `from`: the row or what the region was.
Split enter(Region& region, const WeightedRow& from, const Range& range, double above, const PartOfRow& part) {
  const Split split = split_row(from, range.low, range.high, part);
  const float* const weight = from.weight ? part.weight : nullptr;
  region = {{{part.key}, weight, part.index, split.count}, range.low, range.high, above, split.between};
  return split;
}

/// Enters the part in which the place is. Where it is not between the keys that it should be, the region as it was is
/// asked again, or the row, where the region does not fit into half of the scratch: then it is written over.
void narrow(Region& region, const WeightedRow& all, double mass, BoundaryScratch& scratch) {
  const Range guess = guess_range(region, mass), whole{region.low, region.high};
  const double outside = region.above;
  const WeightedRow row = region.row;
  const bool stays = row.index && row.count <= scratch.half();
  const WeightedRow& source = stays ? row : all;
  const PartOfRow part = scratch.part(stays && row.index == scratch.part(0).index ? scratch.half() : 0);
  const Split split = enter(region, row, guess, outside, part);
  region.above += split.above;
  if (region.above > mass) {
    enter(region, source, {std::nextafter(guess.high, kInfinite), whole.high}, outside, part);
  } else if (const double below = region.above + split.between; below <= mass) {
    enter(region, source, {whole.low, std::nextafter(guess.low, -kInfinite)}, below, part);
  }
}

Boundary place_at(const Region& region, size_t i, double reached) {
  return {region.row.key[i], region.index(i), reached};
}

/// Elements of equal keys until their sum exceeds the mass; the last where it never does.
Boundary walk(const Region& region, double mass) {
  double reached = region.above;
  if (!region.row.weight) {
    const auto i = std::min(static_cast<size_t>(std::max(0.0, mass - reached)), region.row.count - 1);
    return place_at(region, i, reached + static_cast<double>(i + 1));
  }
  for (size_t i = 0;; ++i) {
    reached += region.weight(i);
    if (reached > mass || i + 1 == region.row.count) return place_at(region, i, reached);
  }
}

/// Of few.
Boundary select_among(const Region& region, double mass) {
  std::array<Entry, kSelected> entries;
  for (size_t i = 0; i < region.row.count; ++i) entries[i] = {region.row.key[i], region.weight(i), region.index(i)};
  const auto [place, reached] = select(std::span(entries).first(region.row.count), region.above, mass);
  return {entries[place].key, entries[place].index, reached};
}

/// Of many, where all guesses were bad.
Boundary walk_sorted(const Region& region, const WeightedRow& all, double mass, int32_t* list) {
  const std::span<int32_t> order(list, region.row.count);
  std::sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    const float x = all.key[static_cast<size_t>(a)], y = all.key[static_cast<size_t>(b)];
    return x != y ? x > y : a < b;
  });
  double reached = region.above;
  const auto weight_of = [&](int32_t i) { return all.weight ? all.weight[i] : 1.f; };
  const auto found =
      std::ranges::find_if(order.first(order.size() - 1), [&](int32_t i) { return (reached += weight_of(i)) > mass; });
  const auto index = static_cast<size_t>(*found);
  return {all.key[index], index, reached > mass ? reached : reached + weight_of(*found)};
}

}  // namespace

void BoundaryScratch::reserve(size_t count) {
  if (index_.size() >= count) return;
  key_.reserve(count);  // and no more, as resize() alone would
  weight_.reserve(count);
  index_.reserve(count);
  key_.resize(count);
  weight_.resize(count);
  index_.resize(count);
}

Boundary find_boundary(const RowKeys& key, const float* weight, size_t count, double total, double mass,
                       BoundaryScratch& scratch) {
  assert(count > 0 && mass >= 0 && mass < total);
  const WeightedRow all{key, weight, nullptr, count};
  Region region{all, -kInfinite, kInfinite, 0, total};
  for (int pass = 0; region.row.count > kSelected && pass < kMostPasses; ++pass) {
    narrow(region, all, mass, scratch);
    if (region.low == region.high) return walk(region, mass);
  }
  if (region.row.count <= kSelected) return select_among(region, mass);
  return walk_sorted(region, all, mass,
                     scratch.part(region.row.index == scratch.part(0).index ? 0 : scratch.half()).index);
}

}  // namespace contexture
