#include "sampling/candidates.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace contexture {
namespace {

constexpr float kUnbounded = std::numeric_limits<float>::infinity();

constexpr size_t kFewNumbers = 1024;  // texts grow by a token at a time: their numbers by this many

size_t numbers_for(size_t context) {
  return (context + kFewNumbers - 1) / kFewNumbers * kFewNumbers;
}

/// To this size and no further, as resize() alone would.
template <class Number>
void grow(std::vector<Number>& row, size_t count) {
  if (row.size() >= count) return;
  row.reserve(count);
  row.resize(count);
}

}  // namespace

size_t Candidates::bytes_for(size_t vocabulary, size_t context) {
  return vocabulary * (2 * sizeof(float) + sizeof(int32_t)) + numbers_for(context) * sizeof(int32_t) +
         BoundaryScratch::bytes_for(vocabulary);
}

void Candidates::reserve(size_t vocabulary, size_t context) {
  grow(logits_, vocabulary);
  grow(weights_, vocabulary);
  grow(ids_, vocabulary);
  scratch_.reserve(vocabulary);
  numbers(context);
}

double Candidates::reset(std::span<const float> logits) {
  reserve(logits.size(), 0);
  size_ = logits.size();
  is_whole_ = true;
  slope_.reset();
  row_ = logits.data();
  peak_ = peak_of(row_, size_);
  if (peak_->has_nan || !std::isfinite(peak_->largest)) return std::numeric_limits<double>::quiet_NaN();
  return peak_->largest + std::log(weigh(1));
}

std::span<float> Candidates::row() {
  assert(is_whole_);
  peak_.reset();
  slope_.reset();
  if (row_ != logits_.data()) std::copy_n(row_, size_, logits_.data());
  row_ = logits_.data();
  return {logits_.data(), size_};
}

std::span<int32_t> Candidates::tally() {
  assert(is_whole_);
  return {ids_.data(), size_};
}

std::span<int32_t> Candidates::numbers(size_t count) {
  grow(numbers_, numbers_for(count));
  return {numbers_.data(), count};
}

const RowPeak& Candidates::peak() {
  if (!peak_) peak_ = peak_of(row_, size_);
  return *peak_;
}

double Candidates::weigh(float slope) {
  if (slope_ != slope) {
    slope_ = slope;
    total_ = contexture::weigh(row_, size_, peak().largest, slope, weights_.data());
  }
  if (!total_) total_ = sum_of_weights(weights_.data(), size_);
  return *total_;
}

Boundary Candidates::likeliest_until(double total, double mass) {
  return find_boundary({row_}, weights_.data(), size_, total, mass, scratch_);
}

Boundary Candidates::likeliest_after(double count) {
  return find_boundary({row_}, nullptr, size_, static_cast<double>(size_), count, scratch_);
}

Boundary Candidates::nearest_until(float centre, double total, double mass) {
  return find_boundary({row_, true, centre}, weights_.data(), size_, total, mass, scratch_);
}

/// Elements before index `turn` stay where their key is in one range, those from there on where it is in the other.
/// Weights stay as they are where they are known.
void Candidates::cut(const RowKeys& key, size_t turn, const Range& before, const Range& after) {
  float* const weights = slope_ ? weights_.data() : nullptr;
  const CutRows rows{.key = key,
                     .in = {row_, weights},
                     .out = {logits_.data(), weights},
                     .in_id = is_whole_ ? nullptr : ids_.data(),
                     .out_id = ids_.data()};
  const size_t kept = keep_between(rows, 0, turn, before.low, before.high, 0);
  size_ = keep_between(rows, turn, size_, after.low, after.high, kept);
  row_ = logits_.data();
  is_whole_ = false;
  total_.reset();
}

void Candidates::keep_at_least(float logit) {
  cut({row_}, 0, {}, {logit, kUnbounded});
}

void Candidates::keep_likeliest(const Boundary& last) {
  const float above = std::nextafter(last.key, kUnbounded);
  cut({row_}, last.index + 1, {last.key, kUnbounded}, {above, kUnbounded});
}

void Candidates::keep_nearest(float centre, const Boundary& last) {
  const float above = std::nextafter(last.key, kUnbounded);
  cut({row_, true, centre}, last.index + 1, {last.key, kUnbounded}, {above, kUnbounded});
  // That may have taken the largest logit, which weights are against.
  const float largest = peak().largest;
  peak_.reset();
  if (peak().largest != largest) slope_.reset();
}

void Candidates::keep_from(const Boundary& first) {
  const float below = std::nextafter(first.key, -kUnbounded);
  if (first.key != peak().largest) slope_.reset();
  cut({row_}, first.index, {-kUnbounded, below}, {-kUnbounded, first.key});
  peak_ = {first.key, false};
}

}  // namespace contexture
