// One choice from a row of logits, on one thread, at Llama 3's vocabulary. Two rows: one as a model makes them, with
// most of the probability on few tokens, and a flat one, of which any filter keeps many.

#include <benchmark/benchmark.h>

#include <algorithm>
#include <random>

#include "sampling/sampler.h"

namespace contexture {
namespace {

constexpr size_t kVocabulary = 128256, kHistory = 4096;

std::vector<float> logits_of(bool is_flat) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, is_flat ? 1.f : 2.5f);
  std::vector<float> logits(kVocabulary);
  for (float& logit : logits) logit = normal(random);
  for (size_t i = 0; !is_flat && i < 30; ++i) logits[random() % kVocabulary] = 12 + normal(random);
  return logits;
}

const Sampling kNothing{.temperature = 1, .top_k = 0, .top_p = 1, .min_p = 0};

template <class Change>
Sampling with(const Change& change) {
  Sampling sampling = kNothing;
  change(sampling);
  return sampling;
}

void run_choose(benchmark::State& state, const Sampling& sampling) {
  const std::vector<float> logits = logits_of(state.range(0) != 0);
  std::mt19937 random(2);
  std::vector<TokenId> history(kHistory);
  for (TokenId& id : history) id = static_cast<TokenId>(random() % 2000);
  // Where the likeliest token is penalised all weights change, since they are against the largest logit.
  if (sampling.repeat_penalty != 1) {
    history.back() = static_cast<TokenId>(std::ranges::max_element(logits) - logits.begin());
  }
  Sampler sampler(sampling);
  Candidates candidates;
  candidates.reserve(kVocabulary, kHistory);
  for (auto _ : state) benchmark::DoNotOptimize(sampler.choose(logits, history, candidates));
}

void run_likeliest(benchmark::State& state) {
  const std::vector<float> logits = logits_of(state.range(0) != 0);
  Candidates candidates;
  for (auto _ : state) benchmark::DoNotOptimize(likeliest(logits, 20, 0, candidates));
}

const bool kRegistered = [] {
  const std::pair<const char*, Sampling> settings[] = {
      {"greedy", with([](Sampling& s) { s.temperature = 0; })},
      {"usual", Sampling{}},
      {"no filter", kNothing},
      {"no filter, temperature 0.8", with([](Sampling& s) { s.temperature = 0.8f; })},
      {"top-k 1000", with([](Sampling& s) { s.top_k = 1000; })},
      {"top-k 60000", with([](Sampling& s) { s.top_k = 60000; })},
      {"top-p 0.95", with([](Sampling& s) { s.top_p = 0.95f; })},
      {"min-p 0.05", with([](Sampling& s) { s.min_p = 0.05f; })},
      {"typical-p 0.9", with([](Sampling& s) { s.typical_p = 0.9f; })},
      {"top-n-sigma 1", with([](Sampling& s) { s.top_n_sigma = 1; })},
      {"XTC", with([](Sampling& s) { s.xtc_probability = 1, s.xtc_threshold = 0.00001f; })},
      {"Mirostat 2", with([](Sampling& s) { s.mirostat = 2; })},
      {"penalties, last 4096", with([](Sampling& s) { s.presence_penalty = 0.5f, s.repeat_last_n = -1; })},
      {"penalties, the likeliest's too", with([](Sampling& s) { s.repeat_penalty = 1.1f, s.repeat_last_n = -1; })},
      {"DRY, last 4096", with([](Sampling& s) { s.dry_multiplier = 1; })},
      {"all at once", with([](Sampling& s) {
         s.presence_penalty = 0.5f, s.dry_multiplier = 1, s.top_n_sigma = 3, s.top_k = 60000, s.typical_p = 0.95f;
         s.top_p = 0.95f, s.min_p = 0.001f, s.xtc_probability = 1, s.xtc_threshold = 0.001f, s.temperature = 0.8f;
       })},
  };
  for (const auto& [name, sampling] : settings) {
    for (const int flat : {0, 1}) {
      benchmark::RegisterBenchmark((std::string("choose/") + name + (flat ? "/flat" : "/peaked")).c_str(), run_choose,
                                   sampling)
          ->Arg(flat)
          ->Unit(benchmark::kMillisecond);
    }
  }
  return true;
}();

BENCHMARK(run_likeliest)->Name("20 likeliest")->Arg(0)->Arg(1)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace contexture
