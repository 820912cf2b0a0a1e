#include "verify/pairwise.h"

#include <cstdint>

namespace contexture {
namespace {

/// The pairs of values, of two dimensions, that no choice holds yet.
class Pairs {
 public:
  explicit Pairs(std::span<const size_t> sizes) {
    for (const size_t size : sizes) {
      first_.push_back(values_);
      values_ += size;
    }
    met_.assign(values_ * values_, false);
    for (size_t a = 0; a < sizes.size(); ++a) {
      for (size_t b = a + 1; b < sizes.size(); ++b) left_ += sizes[a] * sizes[b];
    }
  }

  size_t left() const { return left_; }
  bool met(size_t a, size_t value_a, size_t b, size_t value_b) const {
    return met_[(first_[a] + value_a) * values_ + first_[b] + value_b];
  }
  void meet(const Choice& choice) {
    for (size_t a = 0; a < choice.size(); ++a) {
      for (size_t b = a + 1; b < choice.size(); ++b) {
        if (met(a, choice[a], b, choice[b])) continue;
        met_[(first_[a] + choice[a]) * values_ + first_[b] + choice[b]] = true;
        --left_;
      }
    }
  }

 private:
  std::vector<size_t> first_;  // place of each dimension's values among all
  size_t values_ = 0, left_ = 0;
  std::vector<bool> met_;  // (values, values)
};

/// New pairs that a value brings to a choice whose dimensions up to `dimension` are made.
size_t gain(const Pairs& pairs, const Choice& choice, size_t dimension, size_t value) {
  size_t gained = 0;
  for (size_t before = 0; before < dimension; ++before) {
    gained += !pairs.met(before, choice[before], dimension, value);
  }
  return gained;
}

}  // namespace

std::vector<Choice> pairwise(std::span<const size_t> sizes) {
  Pairs pairs(sizes);
  std::vector<Choice> choices;
  uint64_t random = 1;
  const auto up_to = [&](size_t count) {
    random = random * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>(random >> 33) % count;
  };
  // Of some tries the one that brings most; a try takes, dimension by dimension, what meets most that is new.
  constexpr int kTries = 50;
  const auto attempt = [&] {
    Choice choice(sizes.size());
    for (size_t d = 0; d < sizes.size(); ++d) {
      size_t most = 0;
      const size_t offset = choice[d] = up_to(sizes[d]);
      for (size_t i = 0; i < sizes[d]; ++i) {
        const size_t value = (offset + i) % sizes[d], gained = gain(pairs, choice, d, value);
        if (gained > most) {
          most = gained;
          choice[d] = value;
        }
      }
    }
    return choice;
  };
  do {
    const size_t before = pairs.left();
    Choice best;
    size_t most = 0;
    for (int i = 0; i < kTries || (most == 0 && before > 0); ++i) {
      const Choice choice = attempt();
      size_t gained = 0;
      for (size_t d = 0; d < sizes.size(); ++d) gained += gain(pairs, choice, d, choice[d]);
      if (best.empty() || gained > most) {
        most = gained;
        best = choice;
      }
    }
    pairs.meet(best);
    choices.push_back(best);
  } while (pairs.left() > 0);
  return choices;
}

std::vector<Choice> everything(std::span<const size_t> sizes) {
  std::vector<Choice> choices = {{}};
  for (const size_t size : sizes) {
    std::vector<Choice> longer;
    for (const Choice& choice : choices) {
      for (size_t value = 0; value < size; ++value) {
        longer.push_back(choice);
        longer.back().push_back(value);
      }
    }
    choices = std::move(longer);
  }
  return choices;
}

}  // namespace contexture
