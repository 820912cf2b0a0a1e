#include <gtest/gtest.h>

#include <set>

#include "reference.h"
#include "sampling/dry.h"
#include "sampling/processor.h"
#include "sampling/sampler.h"
#include "support/random.h"

namespace contexture {
namespace {

constexpr size_t kVocabularies[] = {1, 2, 3, 17, 100, 600, 5000};
const Sampling kOff{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};

/// Logits with ties and tokens that are ruled out; one at least is not.
std::vector<float> some_logits(std::mt19937& random, size_t count) {
  std::vector<float> row = random_floats(random, count, 1 + static_cast<float>(random() % 4));
  for (float& x : row) {
    if (random() % 4 == 0) x = std::round(x);
    if (random() % 9 == 0) x = kRuledOut;
  }
  row[random() % count] = 2;
  return row;
}

std::vector<TokenId> some_text(std::mt19937& random, size_t vocabulary, size_t length, size_t kinds) {
  std::vector<TokenId> text(length);
  for (TokenId& id : text) id = static_cast<TokenId>(random() % std::min(vocabulary, kinds));
  return text;
}

void apply(std::string_view name, const Sampling& s, const Occasion& occasion, Candidates& candidates) {
  for (const Processor* p : processors()) {
    if (p->name != name) continue;
    ASSERT_TRUE(p->is_on(s)) << name;
    return p->apply(s, occasion, candidates);
  }
  FAIL() << "no step is called " << name;
}

const DryBreakers kNoBreakers;

/// What a step leaves of a row, by id.
std::set<TokenId> left_by(std::string_view name, const Sampling& s, const std::vector<float>& row) {
  Candidates candidates;
  candidates.reset(row);
  apply(name, s, {{}, {}, {}, kNoBreakers, 0}, candidates);
  std::set<TokenId> ids;
  for (size_t i = 0; i < candidates.size(); ++i) {
    EXPECT_EQ(candidates.logit(i), row[static_cast<size_t>(candidates.id(i))]);
    ids.insert(candidates.id(i));
  }
  return ids;
}

template <class Plain>
void expect_cut(std::string_view name, const Sampling& s, const std::vector<float>& row, const Plain& plain) {
  Sorted tokens = sorted(row);
  plain(tokens);
  std::set<TokenId> want;
  for (const SortedToken& t : tokens) want.insert(t.id);
  EXPECT_EQ(left_by(name, s, row), want) << name << " of " << row.size();
}

TEST(Processors, CutWhatAPlainSortCuts) {
  std::mt19937 random = fresh_random();
  std::uniform_real_distribution<float> share(0, 0.999f);
  for (int round = 0; round < 30; ++round) {
    for (const size_t vocabulary : kVocabularies) {
      const std::vector<float> row = some_logits(random, vocabulary);
      Sampling s = kOff;
      s.top_k = 1 + static_cast<int32_t>(random() % vocabulary);
      s.top_p = share(random), s.typical_p = share(random), s.min_p = 0.001f + share(random) / 2;
      s.top_n_sigma = 3 * share(random) + 0.01f;
      s.xtc_probability = 1, s.xtc_threshold = share(random) * share(random) / 3;
      expect_cut("top-n-sigma", s, row, [&](Sorted& t) { keep_top_n_sigma(t, s.top_n_sigma); });
      expect_cut("top-k", s, row, [&](Sorted& t) { keep_top_k(t, s.top_k); });
      expect_cut("typical-p", s, row, [&](Sorted& t) { keep_typical(t, s.typical_p); });
      expect_cut("top-p", s, row, [&](Sorted& t) { keep_top_p(t, s.top_p); });
      expect_cut("min-p", s, row, [&](Sorted& t) { keep_min_p(t, s.min_p); });
      expect_cut("XTC", s, row, [&](Sorted& t) { leave_out_top_choices(t, s.xtc_threshold); });
    }
  }
}

std::vector<float> changed_by(std::string_view name, const Sampling& s, const Occasion& occasion,
                              const std::vector<float>& row) {
  Candidates candidates;
  for (int again = 0; again < 2; ++again) {  // nothing is left behind
    candidates.reset(row);
    apply(name, s, occasion, candidates);
  }
  return {candidates.logits().begin(), candidates.logits().end()};
}

TEST(Processors, PenaltiesCountTheLastTokens) {
  std::mt19937 random = fresh_random();
  for (const int32_t window : {-1, 1, 5, 64, 1000}) {
    const std::vector<float> row = some_logits(random, 50);
    const std::vector<TokenId> text = some_text(random, 50, 100, 60);
    Sampling s = kOff;
    s.repeat_penalty = 1.3f, s.presence_penalty = 0.4f, s.frequency_penalty = 0.1f, s.repeat_last_n = window;
    std::vector<float> want = row;
    penalise(want, std::span(text).last(window < 0 ? 100 : std::min(window, 100)), s);
    EXPECT_EQ(changed_by("penalties", s, {text, {}, {}, kNoBreakers, 0}, row), want) << window;
  }
  Sampling none = kOff;
  none.repeat_penalty = 2, none.repeat_last_n = 0;
  for (const Processor* p : processors()) EXPECT_TRUE(p->name != "penalties" || !p->is_on(none));
}

TEST(Processors, DryFindsTheLongestRepetition) {
  std::mt19937 random = fresh_random();
  for (int round = 0; round < 200; ++round) {
    const std::vector<float> row = some_logits(random, 12);
    const std::vector<TokenId> text = some_text(random, 12, 1 + random() % 80, 2 + random() % 4);
    Sampling s = kOff;
    s.dry_multiplier = 0.8f, s.dry_base = 1.1f, s.dry_allowed_length = static_cast<int32_t>(random() % 4);
    std::vector<TokenId> breaking;
    DryBreakers breakers;
    if (round % 3 == 0) breakers.add(breaking.emplace_back(static_cast<TokenId>(random() % 4)), {});
    std::vector<float> want = row;
    if (text.size() > static_cast<size_t>(s.dry_allowed_length)) penalise_repetitions(want, text, s, breaking);
    EXPECT_EQ(changed_by("DRY", s, {text, {}, {}, breakers, 0}, row), want) << "round " << round;
  }
}

TEST(Processors, ABreakerOfSeveralTokensEndsWhereItsTailEnds) {
  DryBreakers breakers;
  breakers.add(5, {6, 7});
  breakers.add(5, {6});
  EXPECT_EQ(breakers.tokens_since(std::vector<TokenId>{1, 5, 6, 7, 2, 3}), 2u) << "the longer one";
  EXPECT_EQ(breakers.tokens_since(std::vector<TokenId>{1, 5, 6, 2, 3}), 2u);
  EXPECT_EQ(breakers.tokens_since(std::vector<TokenId>{1, 5, 2, 3}), 4u) << "none is whole";
  EXPECT_FALSE(breakers.breaks(5)) << "not by itself";
  breakers.add(5, {});
  EXPECT_TRUE(breakers.breaks(5));
  EXPECT_EQ(breakers.tokens_since(std::vector<TokenId>{1, 5}), 0u);
}

TEST(Processors, AMaskRulesOutWhatHasNoBit) {
  std::mt19937 random = fresh_random();
  for (const size_t vocabulary : {size_t{1}, size_t{63}, size_t{64}, size_t{65}, size_t{300}}) {
    const std::vector<float> row = random_floats(random, vocabulary);
    std::vector<uint64_t> allowed((vocabulary + 63) / 64);
    for (uint64_t& word : allowed) word = random() % 3 == 0 ? 0 : random() % 2 ? ~uint64_t{0} : random();
    const std::vector<TokenId> banned = {0};
    std::vector<float> want = row;
    for (size_t id = 0; id < vocabulary; ++id) {
      if (!(allowed[id / 64] >> id % 64 & 1) || id == 0) want[id] = kRuledOut;
    }
    EXPECT_EQ(changed_by("mask", kOff, {{}, banned, allowed, kNoBreakers, 0}, row), want) << vocabulary;
  }
}

/// Any of the options, on or off.
Sampling some_options(std::mt19937& random, size_t vocabulary) {
  const auto on = [&] { return random() % 2 == 0; };
  std::uniform_real_distribution<float> share(0, 0.999f);
  Sampling s = kOff;
  s.seed = random();
  s.temperature = random() % 5 == 0 ? 0 : 0.1f + 2 * share(random);
  if (on()) s.top_k = 1 + static_cast<int32_t>(random() % (2 * vocabulary));
  if (on()) s.top_p = share(random);
  if (on()) s.min_p = share(random) / 4;
  if (on()) s.typical_p = share(random);
  if (on()) s.top_n_sigma = 4 * share(random);
  if (on()) s.xtc_probability = share(random), s.xtc_threshold = share(random) / 2;
  if (on()) s.repeat_penalty = 0.5f + share(random), s.presence_penalty = share(random), s.repeat_last_n = 20;
  if (on()) s.dry_multiplier = share(random), s.dry_allowed_length = 1;
  if (on()) s.logit_bias = {{static_cast<int32_t>(random() % vocabulary), share(random)}};
  return s;
}

TEST(Processors, TheChainChoosesWhatASamplerThatSortsChooses) {
  std::mt19937 random = fresh_random();
  Candidates candidates;
  for (int round = 0; round < 600; ++round) {
    const size_t vocabulary = kVocabularies[static_cast<size_t>(round) % std::size(kVocabularies)];
    const Sampling s = some_options(random, vocabulary);
    const std::vector<TokenId> text = some_text(random, vocabulary, random() % 50, 30);
    Sampler sampler(s);
    for (uint64_t choice = 0; choice < 4; ++choice) {
      const std::vector<float> row = some_logits(random, vocabulary);
      const TokenId want = choose_sorted(row, text, s, choice);
      EXPECT_EQ(sampler.choose(row, text, candidates).id, want) << "of " << vocabulary;
    }
  }
}

TEST(Processors, TheLikeliestAreThoseOfASort) {
  std::mt19937 random = fresh_random();
  Candidates candidates;
  for (const size_t vocabulary : kVocabularies) {
    const std::vector<float> row = some_logits(random, vocabulary);
    const double log_sum = Sampler(kOff).choose(row, {}, candidates).log_sum;
    double sum = 0;
    for (const float x : row) sum += std::exp(static_cast<double>(x));
    EXPECT_NEAR(log_sum, std::log(sum), 1e-6);
    const Sorted want = sorted(row);
    for (const size_t count : {size_t{0}, size_t{1}, size_t{20}, vocabulary, 2 * vocabulary}) {
      const std::vector<Alternative> got = likeliest(row, count, log_sum, candidates);
      ASSERT_EQ(got.size(), std::min(count, vocabulary));
      for (size_t i = 0; i < got.size(); ++i) {
        EXPECT_EQ(got[i].id, want[i].id);
        EXPECT_FLOAT_EQ(got[i].log_probability, static_cast<float>(want[i].logit - log_sum));
      }
    }
  }
}

}  // namespace
}  // namespace contexture
