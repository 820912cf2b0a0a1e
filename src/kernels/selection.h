#pragma once

#include <cmath>
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
/// who sorts first. What is rounded away is 2^-35 a number at most. `weight` null: the sum alone.
double weigh(const float* x, size_t count, float largest, float slope, float* weight);
double sum_of_weights(const float* weight, size_t count);
/// The first at which the sum up to it, itself included, exceeds `mass`; the last where none does.
size_t find_sum(const float* weight, size_t count, double mass);

/// Σ weight · (x - largest) over what weighs anything; the same bits on every machine.
double weighted_offset(const float* x, const float* weight, size_t count, float largest);

/// Of those that are finite, of which `centre` is one.
struct Spread {
  size_t count;
  double mean, deviation;  ///< the deviation of a population: divided by the count
};
Spread spread_of(const float* x, size_t count, float centre);

/// The index of the first that has the value; `count` where none has.
size_t find_first(const float* x, size_t count, float value);

/// Of the numbers whose weight is above a bound: how many there are, the least of them, and of equal ones the last.
struct LeastHeavy {
  size_t count;
  float least;  ///< anything where there is none, and so is the index
  size_t index;
};
LeastHeavy least_heavy(const float* x, const float* weight, size_t count, float bound);

/// What a row is ordered by, larger ones first: its numbers, or how near they are to a centre, -|x - centre|.
struct RowKeys {
  const float* x;
  bool by_nearness = false;
  float centre = 0;
  float operator[](size_t i) const { return by_nearness ? -std::fabs(x[i] - centre) : x[i]; }
};

/// A row of which a part is wanted.
struct WeightedRow {
  RowKeys key;
  const float* weight;   ///< null: each weighs 1
  const int32_t* index;  ///< in the row that this is a part of; null: this is it
  size_t count;
};
/// Where parts of such a row go: room for as many elements.
struct PartOfRow {
  float *key, *weight;  ///< the second may be null where weights are
  int32_t* index;
};
/// Two of the parts that a range of keys cuts a row into. Exact (weigh).
struct Split {
  double above, between;  ///< the sums of weights: high < key, and low ≤ key ≤ high
  size_t count;           ///< between
};
/// Writes what lies between, in its order; over the row itself perhaps.
Split split_row(const WeightedRow& row, float low, float high, const PartOfRow& between);

/// Rows that are cut together: the same elements of each stay.
struct CutRows {
  RowKeys key;           ///< decides; the row may be one of those below
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
Split split_row_plain(const WeightedRow& row, float low, float high, const PartOfRow& between);
size_t keep_between_plain(const CutRows& rows, size_t from, size_t to, float low, float high, size_t at);

}  // namespace contexture
