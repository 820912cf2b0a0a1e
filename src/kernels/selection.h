#pragma once

#include <cstddef>
#include <cstdint>

namespace contexture {

/// Passes over a row of numbers, of which a few are wanted: the largest, those beyond a bound, those that make up a
/// share of the whole. Rows are what a sampler works on: logits, no NaN but where it says so, -inf allowed.

struct RowPeak {
  float largest;  ///< -inf of an empty row
  bool has_nan;
};
RowPeak peak_of(const float* x, size_t count);

/// weight = exp((x - largest) · slope), rounded to a multiple of 2^-34; x ≤ largest, slope > 0. Returns their sum. Sums
/// of up to 2^19 such weights are exact in float64, whatever their order: who adds them in pieces gets what one gets
/// who sorts first. What is rounded away is 2^-35 a number at most.
double weigh(const float* x, size_t count, float largest, float slope, float* weight);
double sum_of_weights(const float* weight, size_t count);

/// Σ weight · (x - largest) over what weighs anything; the same bits on every machine.
double weighted_offset(const float* x, const float* weight, size_t count, float largest);

/// Of those that are finite, of which `centre` is one.
struct Spread {
  size_t count;
  double mean, deviation;  ///< the deviation of a population: divided by the count
};
Spread spread_of(const float* x, size_t count, float centre);

/// key = -|x - centre|.
void nearness(const float* x, size_t count, float centre, float* key);

/// The index of the first that has the value; `count` where none has.
size_t find_first(const float* x, size_t count, float value);

/// What lies above two bounds. `weight` null: each weighs 1. Exact (weigh).
struct WeightsAbove {
  double sum[2];  ///< bounds[i] < key
};
WeightsAbove weights_above(const float* key, const float* weight, size_t count, const float bounds[2]);

/// The same, and what lies between the bounds, at the first or below it and above the second, is copied with its
/// weights and indices, in its order. One pass for a guess that is probably right.
struct Split {
  WeightsAbove above;
  size_t count;  ///< of what was copied
};
Split split_row(const float* key, const float* weight, size_t count, const float bounds[2], float* out_key,
                float* out_weight, int32_t* out_index);

/// Rows that are cut together: the same elements of each stay.
struct CutRows {
  const float* key;      ///< decides; not written, unless it is one of those below
  const float* in[2];    ///< the second null: there is one
  float* out[2];         ///< may be `in`
  const int32_t* in_id;  ///< null: indices
  int32_t* out_id;       ///< may be `in_id`
};
/// Keeps the elements of [from, to) with low ≤ key ≤ high and writes them from `at` on, in their order; at ≤ from,
/// where rows are written over. Returns the place after the last; what lies between there and `to` is anything then.
size_t keep_between(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at);

/// The same, written plainly: the oracles.
double weigh_plain(const float* x, size_t count, float largest, float slope, float* weight);
WeightsAbove weights_above_plain(const float* key, const float* weight, size_t count, const float bounds[2]);
size_t keep_between_plain(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at);

}  // namespace contexture
