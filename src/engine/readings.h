#pragma once

#include <functional>

#include "engine/text.h"

namespace contexture {

/// Texts that are read and not gone on with.

/// How likely a model finds the tokens of a text, each after those before it.
class Scoring final : public Text {
 public:
  struct Callbacks {
    std::function<void(std::vector<float>&& log_probabilities)> on_finished = {};  ///< natural; of the tokens scored
    std::function<void(FinishReason)> on_stopped = {};  ///< in place of it: the context was full, or it was cancelled
    std::function<void(std::exception_ptr)> on_failed = {};
  };
  /// Scores the tokens from place `from` ≥ 1 on. Throws Error as check_prompt.
  Scoring(const TextLimits& limits, std::span<const TokenId> text, size_t from, const Callbacks& callbacks);

  size_t adoptable() const override { return from_ - 1; }
  size_t rows_wanted(size_t first, size_t count) const override;
  size_t most_tokens() const override { return tokens_.size(); }
  void begin(const PrefixReport&) override {}
  void ran(size_t, size_t length) override { held_ = length; }
  void look(const Rows& rows, Candidates& scratch) override;
  void take() override;
  void finish(FinishReason reason) override;
  void deliver() override;
  void failed(std::exception_ptr error) noexcept override;

 private:
  const size_t from_, vocabulary_;
  const Callbacks callbacks_;
  TokenId last_ = 0;  // of the text: it is scored, and not run
  size_t held_ = 0;
  std::vector<float> log_probabilities_;  // (tokens from from_ on)
  std::optional<FinishReason> stopped_;
};

/// What a text's hidden states come to: a vector for all of it.
class Embedding final : public Text {
 public:
  struct Callbacks {
    std::function<void(std::vector<float>&&)> on_finished = {};  ///< (hidden), of length 1
    std::function<void(FinishReason)> on_stopped = {};
    std::function<void(std::exception_ptr)> on_failed = {};
  };
  /// Throws Error as check_prompt.
  Embedding(const TextLimits& limits, std::span<const TokenId> text, Pooling pooling, const Callbacks& callbacks);

  size_t adoptable() const override { return pooling_ == Pooling::last ? tokens_.size() - 1 : 0; }
  size_t rows_wanted(size_t, size_t) const override { return 0; }
  bool wants_hidden() const override { return true; }
  size_t most_tokens() const override { return tokens_.size(); }
  void begin(const PrefixReport&) override {}
  void ran(size_t, size_t) override {}
  void look(const Rows& rows, Candidates& scratch) override;
  void take() override;
  void finish(FinishReason reason) override;
  void deliver() override;
  void failed(std::exception_ptr error) noexcept override;

 private:
  const Pooling pooling_;
  const Callbacks callbacks_;
  size_t summed_ = 0;         // tokens that are in sums_
  std::vector<double> sums_;  // (hidden)
  std::optional<FinishReason> stopped_;
};

}  // namespace contexture
