#include "sampling/boundary.h"

#include <algorithm>
#include <array>
#include <cassert>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>

#include "kernels/selection.h"

namespace contexture {
namespace {

constexpr float kInfinite = std::numeric_limits<float>::infinity();
constexpr size_t kSample = 128;
constexpr size_t kAside = 8;     // of a sample's elements: the place is seldom further from where the sample has it
constexpr size_t kSorted = 256;  // elements that are sorted
constexpr int kMostPasses = 24;  // a row that no sample fits is sorted as it is then

/// What is left to search: rows of the caller, then of the scratch.
struct Region {
  const float* key;
  const float* weight;   // null: each weighs 1
  const int32_t* index;  // null: their own
  size_t count;
  double total;  // of the weights here
  double mass;   // of them, to exceed

  double weight_of(size_t i) const { return weight ? weight[i] : 1; }
};

/// Keys between which the place probably is: b[0] > b[1] or equal, both in the region, the first perhaps above it.
void guess_bounds(const Region& region, float bounds[2]) {
  struct Sampled {
    float key, weight;
  };
  std::array<Sampled, kSample> sample;
  double total = 0;
  for (size_t s = 0; s < kSample; ++s) {
    const size_t i = s * region.count / kSample;
    sample[s] = {region.key[i], static_cast<float>(region.weight_of(i))};
    total += sample[s].weight;
  }
  std::sort(sample.begin(), sample.end(), [](const Sampled& a, const Sampled& b) { return a.key > b.key; });
  const double share = region.mass / region.total;
  size_t rank = 0;
  double reached = sample[0].weight;
  while (rank + 1 < kSample && reached <= share * total && total > 0) reached += sample[++rank].weight;
  // A sample does not see the few that weigh most.
  bounds[0] = rank < 2 * kAside ? kInfinite : sample[rank - kAside].key;
  bounds[1] = sample[std::min(rank + kAside, kSample - 1)].key;
}

float next_above(float bound) {
  return std::nextafter(bound, kInfinite);
}

/// The region is what is in the scratch now. Whether that is less than there was.
bool take_scratch(Region& region, size_t count, BoundaryScratch& scratch) {
  const size_t before = std::exchange(region.count, count);
  region.key = scratch.key.data();
  if (region.weight) region.weight = scratch.weight.data();
  region.index = scratch.index.data();
  return count < before;
}

/// Keeps what lies between two keys, both included. Whether that is less than there was.
bool keep_range(Region& region, float low, float high, BoundaryScratch& scratch) {
  const CutRows rows{.key = region.key,
                     .in = {region.key, region.weight},
                     .out = {scratch.key.data(), region.weight ? scratch.weight.data() : nullptr},
                     .in_id = region.index,
                     .out_id = scratch.index.data()};
  return take_scratch(region, keep_between(rows, 0, region.count, low, high, 0), scratch);
}

/// What lies above both bounds; a region that is the caller's row is also split, into the scratch.
Split look_at(const Region& region, const float bounds[2], BoundaryScratch& scratch) {
  if (region.index) return {weights_above(region.key, region.weight, region.count, bounds), 0};
  return split_row(region.key, region.weight, region.count, bounds, scratch.key.data(), scratch.weight.data(),
                   scratch.index.data());
}

/// The part of the region in which the place is: above both bounds, between them, or below. False where that is the
/// region itself: then its largest key is the second bound.
bool narrow(Region& region, const float bounds[2], BoundaryScratch& scratch) {
  const auto [above, split] = look_at(region, bounds, scratch);
  if (above.sum[0] > region.mass) {
    region.total = above.sum[0];
    return keep_range(region, next_above(bounds[0]), kInfinite, scratch);
  }
  const bool is_between = above.sum[1] > region.mass;
  const double before = above.sum[is_between ? 0 : 1];
  region.mass -= before;
  region.total = (is_between ? above.sum[1] : region.total) - before;
  if (is_between && !region.index) return take_scratch(region, split, scratch);
  return is_between ? keep_range(region, next_above(bounds[1]), bounds[0], scratch)
                    : keep_range(region, -kInfinite, bounds[1], scratch);
}

Boundary place_at(const Region& region, size_t i) {
  return {region.key[i], region.index ? static_cast<size_t>(region.index[i]) : i};
}

/// Elements in the order given by `next`, until their sum exceeds the region's mass; the last where it never does.
template <class Next>
Boundary walk(const Region& region, const Next& next) {
  double reached = 0;
  for (size_t step = 0; step + 1 < region.count; ++step) {
    const size_t i = next(step);
    reached += region.weight_of(i);
    if (reached > region.mass) return place_at(region, i);
  }
  return place_at(region, next(region.count - 1));
}

/// Among the largest keys of the region, which are equal; nothing where the place is below them, and then they are off
/// the region.
std::optional<Boundary> walk_largest(Region& region, float largest, BoundaryScratch& scratch) {
  double reached = 0;
  for (size_t i = 0; i < region.count; ++i) {
    if (region.key[i] != largest) continue;
    reached += region.weight_of(i);
    if (reached > region.mass) return place_at(region, i);
  }
  region.mass -= reached;
  region.total -= reached;
  keep_range(region, -kInfinite, std::nextafter(largest, -kInfinite), scratch);
  return std::nullopt;
}

Boundary walk_sorted(const Region& region, std::span<uint32_t> order) {
  for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) {
    return region.key[a] != region.key[b] ? region.key[a] > region.key[b] : a < b;
  });
  return walk(region, [&](size_t step) { return order[step]; });
}

}  // namespace

void BoundaryScratch::reserve(size_t count) {
  if (key.size() >= count) return;
  key.resize(count);
  weight.resize(count);
  index.resize(count);
}

Boundary find_boundary(std::span<const float> key, const float* weight, double total, double mass,
                       BoundaryScratch& scratch) {
  assert(!key.empty() && mass >= 0 && mass < total);
  Region region{key.data(), weight, nullptr, key.size(), total, mass};
  for (int pass = 0; region.count > kSorted && pass < kMostPasses; ++pass) {
    float bounds[2];
    guess_bounds(region, bounds);
    if (narrow(region, bounds, scratch)) continue;
    if (const auto found = walk_largest(region, bounds[1], scratch)) return *found;
  }
  if (region.count <= kSorted) {
    std::array<uint32_t, kSorted> order;
    return walk_sorted(region, std::span(order).first(region.count));
  }
  std::vector<uint32_t> order(region.count);
  return walk_sorted(region, order);
}

}  // namespace contexture
