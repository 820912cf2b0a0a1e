#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "engine/text.h"

namespace contexture {

/// A text that is read and not gone on with: some numbers are made of it.
class Reading : public Text {
 public:
  struct Callbacks {
    std::function<void(std::vector<float>&&)> on_finished = {};
    std::function<void(FinishReason)> on_stopped = {};  ///< in place of it: the context was full, or it was cancelled
    std::function<void(std::exception_ptr)> on_failed = {};
    std::shared_ptr<const std::atomic<bool>> cancelled = {};  ///< ends it, where there is one
  };

  size_t most_tokens() const final { return tokens_.size(); }
  void begin(const PrefixReport&) final {}
  void ran(size_t, size_t length) final { held_ = length; }
  void take() final { finished_ = held_ == tokens_.size(); }
  void finish(FinishReason reason) final;
  void deliver() final;
  void failed(std::exception_ptr error) noexcept final;

 protected:
  explicit Reading(const Callbacks& callbacks) : callbacks_(callbacks) { cancelled = callbacks_.cancelled.get(); }

 private:
  /// What it comes to, when all of it has been read.
  virtual std::vector<float> result() = 0;

  const Callbacks callbacks_;
  size_t held_ = 0;  // tokens
  std::optional<FinishReason> stopped_;
};

/// How likely a model finds the tokens of a text, each after those before it: natural log-probabilities.
class Scoring final : public Reading {
 public:
  /// Scores the tokens from place `from` ≥ 1 on. Throws Error as check_prompt.
  Scoring(const TextLimits& limits, std::span<const TokenId> text, size_t from, const Callbacks& callbacks);

  size_t adoptable() const override { return from_ - 1; }
  size_t rows_wanted(size_t first, size_t count) const override;
  void look(const Rows& rows, Candidates& scratch) override;

 private:
  std::vector<float> result() override { return std::move(log_probabilities_); }

  const size_t from_, vocabulary_;
  TokenId last_ = 0;                      // of the text: it is scored, and not run
  std::vector<float> log_probabilities_;  // (tokens from from_ on)
};

/// What a text's hidden states come to: a vector of length 1 for all of it, (hidden).
class Embedding final : public Reading {
 public:
  /// Throws Error as check_prompt.
  Embedding(const TextLimits& limits, std::span<const TokenId> text, Pooling pooling, const Callbacks& callbacks);

  size_t adoptable() const override { return pooling_ == Pooling::last ? tokens_.size() - 1 : 0; }
  size_t rows_wanted(size_t, size_t) const override { return 0; }
  bool wants_hidden() const override { return true; }
  void look(const Rows& rows, Candidates& scratch) override;

 private:
  std::vector<float> result() override;

  const Pooling pooling_;
  size_t summed_ = 0;         // tokens that are in sums_: those that are run again are not added again
  std::vector<double> sums_;  // (hidden)
};

}  // namespace contexture
