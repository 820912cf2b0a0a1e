#include "sampling/candidates.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>

namespace contexture {
namespace {

constexpr float kUnbounded = std::numeric_limits<float>::infinity();

template <class Number>
void grow(std::vector<Number>& row, size_t count) {
  if (row.size() < count) row.resize(count);
}

}  // namespace

double Candidates::reset(std::span<const float> logits) {
  grow(logits_, logits.size());
  grow(weights_, logits.size());
  grow(ids_, logits.size());
  scratch_.reserve(logits.size());
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

std::span<uint32_t> Candidates::tally() {
  grow(tally_, size_);
  return {tally_.data(), size_};
}

std::span<int32_t> Candidates::numbers(size_t count) {
  grow(numbers_, count);
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

std::span<float> Candidates::keys() {
  grow(keys_, size_);
  return {keys_.data(), size_};
}

Boundary Candidates::likeliest_until(double total, double mass) {
  return find_boundary(logits(), weights_.data(), total, mass, scratch_);
}

Boundary Candidates::likeliest_after(double count) {
  return find_boundary(logits(), nullptr, static_cast<double>(size_), count, scratch_);
}

Boundary Candidates::foremost_until(double total, double mass) {
  return find_boundary(keys(), weights_.data(), total, mass, scratch_);
}

/// Elements before index `turn` stay where their key is in one range, those from there on where it is in the other.
/// Weights stay as they are where they are known.
void Candidates::cut(const float* key, size_t turn, const Range& before, const Range& after) {
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

/// After a cut that may have taken the largest logit, which weights are against.
void Candidates::forget_weights_unless(float largest) {
  peak_.reset();
  if (peak().largest != largest) slope_.reset();
}

void Candidates::keep_at_least(float logit) {
  cut(row_, 0, {}, {logit, kUnbounded});
}

void Candidates::keep_likeliest(const Boundary& last) {
  const float above = std::nextafter(last.key, kUnbounded);
  cut(row_, last.index + 1, {last.key, kUnbounded}, {above, kUnbounded});
}

void Candidates::keep_foremost(const Boundary& last) {
  const float largest = peak().largest, above = std::nextafter(last.key, kUnbounded);
  cut(keys_.data(), last.index + 1, {last.key, kUnbounded}, {above, kUnbounded});
  forget_weights_unless(largest);
}

void Candidates::keep_from(const Boundary& first) {
  const float largest = peak().largest, below = std::nextafter(first.key, -kUnbounded);
  cut(row_, first.index, {-kUnbounded, below}, {-kUnbounded, first.key});
  forget_weights_unless(largest);
}

}  // namespace contexture
