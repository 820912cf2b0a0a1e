#include "sampling/candidates.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

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

void Candidates::take(std::span<const float> logits) {
  reserve(logits.size(), 0);
  size_ = logits.size();
  is_whole_ = true;
  row_ = logits.data();
  peak_.reset();
  forget_weights();
}

double Candidates::reset(std::span<const float> logits) {
  take(logits);
  if (peak().has_nan || !std::isfinite(peak().largest)) return std::numeric_limits<double>::quiet_NaN();
  return peak().largest + std::log(weigh(1));
}

void Candidates::own_row() {
  assert(is_whole_);
  if (row_ != logits_.data()) std::copy_n(row_, size_, logits_.data());
  row_ = logits_.data();
}

void Candidates::forget_weights() {
  slope_.reset();
  changed_ = 0;
}

/// Of a token that was less likely than the likeliest and stays so, nothing but its own weight changes.
void Candidates::change(TokenId id, float logit) {
  own_row();
  float& present = logits_[static_cast<size_t>(id)];
  if (peak_ && present < peak_->largest && logit <= peak_->largest) {
    if (slope_ && changed_ < size_) {
      scratch_.part(0).index[changed_++] = id;
    } else {
      forget_weights();
    }
  } else {
    peak_.reset();
    forget_weights();
  }
  present = logit;
}

void Candidates::weigh_changed() {
  const PartOfRow part = scratch_.part(0);
  const size_t count = std::exchange(changed_, 0);
  if (count == 0) return;
  for (size_t i = 0; i < count; ++i) part.key[i] = row_[part.index[i]];
  contexture::weigh(part.key, count, peak().largest, *slope_, part.weight);
  for (size_t i = 0; i < count; ++i) {
    const float before = std::exchange(weights_[static_cast<size_t>(part.index[i])], part.weight[i]);
    if (total_) *total_ += static_cast<double>(part.weight[i]) - before;
  }
}

std::span<float> Candidates::row() {
  own_row();
  peak_.reset();
  forget_weights();
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
  if (slope_ == slope) {
    weigh_changed();
  } else {
    forget_weights();
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
  weigh_changed();  // a search takes the memory of their list
  return find_boundary({row_}, nullptr, size_, static_cast<double>(size_), count, scratch_);
}

Boundary Candidates::nearest_until(float centre, double total, double mass) {
  return find_boundary({row_, true, centre}, weights_.data(), size_, total, mass, scratch_);
}

/// Elements before index `turn` stay where their key is in one range, those from there on where it is in the other.
/// Weights stay as they are where they are known.
void Candidates::cut(const RowKeys& key, size_t turn, const Range& before, const Range& after) {
  weigh_changed();
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

void Candidates::keep_likeliest(const Boundary& last, std::optional<double> total) {
  const float above = std::nextafter(last.key, kUnbounded);
  cut({row_}, last.index + 1, {last.key, kUnbounded}, {above, kUnbounded});
  total_ = total;
}

void Candidates::keep_nearest(float centre, const Boundary& last) {
  // Weights are against the largest logit, which may be too far away. (Where it is as far as the last, some of its kind
  // may stay.)
  const float largest = peak().largest, its_key = -std::fabs(largest - centre);
  if (its_key < last.key) forget_weights();
  const float above = std::nextafter(last.key, kUnbounded);
  cut({row_, true, centre}, last.index + 1, {last.key, kUnbounded}, {above, kUnbounded});
  total_ = last.reached;
  if (its_key > last.key) return;
  peak_.reset();
  if (peak().largest != largest) forget_weights();
}

void Candidates::keep_from(const Boundary& first) {
  const float below = std::nextafter(first.key, -kUnbounded);
  if (first.key != peak().largest) forget_weights();
  cut({row_}, first.index, {-kUnbounded, below}, {-kUnbounded, first.key});
  peak_ = {first.key, false};
}

}  // namespace contexture
