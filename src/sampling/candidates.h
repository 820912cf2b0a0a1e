#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "kernels/selection.h"
#include "sampling/boundary.h"
#include "text/vocabulary.h"

namespace contexture {

/// The tokens that may still be chosen, in the order of their ids: a row of logits that is first changed and then cut.
/// Memory of a choice, which leaves nothing in it: any number of samplers share one, a thread at a time. It grows to
/// the vocabulary and the longest text once, or reserves that at once, and then allocates nothing.
class Candidates {
 public:
  /// The most bytes that it ever holds, whatever is done with rows of a vocabulary and texts of a context.
  static size_t bytes_for(size_t vocabulary, size_t context);
  void reserve(size_t vocabulary, size_t context);

  /// All tokens, with these logits, which must stay where they are while these are candidates.
  void take(std::span<const float> logits);
  /// The same. Returns log Σ exp(logits); NaN where one of them is NaN or infinite and not below zero, or none is
  /// finite.
  double reset(std::span<const float> logits);

  size_t size() const { return size_; }
  TokenId id(size_t i) const { return is_whole_ ? static_cast<TokenId>(i) : ids_[i]; }
  float logit(size_t i) const { return row_[i]; }
  std::span<const float> logits() const { return {row_, size_}; }

  /// A token's logit, or all of them, to change. Only before anything is cut.
  void change(TokenId id, float logit);
  std::span<float> row();
  /// A number for each token, to count with; who counts sets those to zero first that it counts with. Only before
  /// anything is cut.
  std::span<int32_t> tally();
  /// Numbers of a step's own, as many as asked for: one a token of a text.
  std::span<int32_t> numbers(size_t count);

  /// The largest of the logits, and whether one is NaN.
  const RowPeak& peak();
  /// weights() = exp((logit - largest) · slope), on a grid (kernels/selection.h); returns their sum, which is exact.
  double weigh(float slope);
  std::span<const float> weights() const { return {weights_.data(), size_}; }

  /// The first candidate, in the order of ids, at which the sum of the last weigh's weights exceeds `mass`, which is
  /// less than all of them.
  size_t first_until(double mass) const { return find_sum(weights_.data(), size_, mass); }
  /// The same, the likeliest first and equal ones by id: at which the sum of the last weigh's weights
  /// exceeds `mass`, which is less than all of them.
  Boundary likeliest_until(double total, double mass);
  /// The same, each weighing 1.
  Boundary likeliest_after(double count);
  /// The same, those first whose logits are nearest to the centre.
  Boundary nearest_until(float centre, double total, double mass);

  void keep_at_least(float logit);
  /// Up to this place in the order of logits, of which the sum of the last weigh's weights may be known, or in that of
  /// their nearness to the centre, as nearest_until found it; and from this place on.
  void keep_likeliest(const Boundary& last, std::optional<double> total = {});
  void keep_nearest(float centre, const Boundary& last);
  void keep_from(const Boundary& first);

 private:
  struct Range {
    float low, high;
  };
  void own_row();
  void forget_weights();
  void weigh_changed();
  void cut(const RowKeys& key, size_t turn, const Range& before, const Range& after);

  std::optional<RowPeak> peak_;  // of the present logits, where it is known
  std::optional<float> slope_;   // that weights_ are for, against the largest of the present logits
  std::optional<double> total_;  // of weights_, where it is known
  size_t changed_ = 0;           // tokens whose weights are those of other logits; they are listed in scratch_
  bool is_whole_ = true;         // ids are indices
  size_t size_ = 0;
  const float* row_ = nullptr;  // the present logits: the caller's, until they are changed or cut
  std::vector<float> logits_, weights_;
  std::vector<int32_t> ids_;  // before anything is cut: the tally
  std::vector<int32_t> numbers_;
  BoundaryScratch scratch_;
};

}  // namespace contexture
