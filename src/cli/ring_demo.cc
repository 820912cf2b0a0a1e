// The walk-through of context parallelism: sharding, pass-KV, pass-Q, the selector, decode, on numbers small enough to
// look at.

#include <fmt/ranges.h>

#include "backends/ring/demo.h"
#include "base/error.h"
#include "cli/command.h"

namespace contexture::cli {
namespace {

/// f32 sums of random numbers of about 1, over as many tokens as the walk-through takes.
constexpr double kTolerance = 1e-5;

struct Demo {
  RingDemo demo;
  bool json = false;

  void run() const {
    if (demo.heads % demo.kv_heads != 0) {
      fail("{} query heads do not share {} KV heads evenly; take a multiple", demo.heads, demo.kv_heads);
    }
    const RingDemoResult result = run_ring_demo(demo);
    const bool ok = is_exact(result);
    if (json) {
      print_json(as_json(result, ok));
    } else {
      tell(result);
    }
    if (!ok) fail("the ranks' attention is not that of one machine; please report this, with the flags you gave");
  }

  static bool is_exact(const RingDemoResult& r) {
    bool ok = r.pass_kv.max_error <= kTolerance && r.pass_q.max_error <= kTolerance && r.same_bits;
    for (const auto& step : r.decode) ok &= step.max_error <= kTolerance;
    return ok;
  }

  /// The paper's cluster: Llama 3 405B, a node of eight H100 a rank.
  RingShape cluster() const {
    return {.ranks = static_cast<double>(demo.ranks), .heads = 128, .kv_heads = 8, .flops = 800e12, .bandwidth = 50e9};
  }
  static constexpr double kSelectorTokens = 128000;
  static constexpr double kMissRates[] = {0.01, 0.025, 0.05, 0.1, 0.125, 0.15, 0.2, 0.5, 1};

  Json as_json(const RingDemoResult& r, bool ok) const {
    Json shards = Json::array(), selector = Json::array(), decode = Json::array();
    for (int rank = 0; rank < demo.ranks; ++rank) {
      Json positions = Json::array();
      for (const OwnedRun& run : r.shards) {
        for (size_t i = 0; run.rank == rank && i < run.count; ++i)
          positions.push_back(run.first + static_cast<int64_t>(i));
      }
      shards.push_back(positions);
    }
    for (const double miss : kMissRates) {
      const double tokens = miss * kSelectorTokens, cached = kSelectorTokens - tokens;
      selector.push_back({{"miss_rate", miss},
                          {"new_tokens", tokens},
                          {"cached_tokens", cached},
                          {"algorithm_1", name(select_simple(cluster(), tokens, cached))},
                          {"algorithm_5", name(contexture::select(cluster(), tokens, cached))}});
    }
    for (const auto& step : r.decode) {
      decode.push_back({{"owner", step.owner}, {"held", step.held}, {"max_abs_error", step.max_error}});
    }
    const auto passed = [](const RingDemoResult::Passed& p) {
      return Json{{"max_abs_error", p.max_error}, {"bytes_sent", p.bytes_sent}};
    };
    return {{"ranks", demo.ranks},          {"tokens", demo.tokens},      {"heads", demo.heads},
            {"kv_heads", demo.kv_heads},    {"head_dim", demo.head_dim},  {"shards", shards},
            {"pass_kv", passed(r.pass_kv)}, {"pass_q", passed(r.pass_q)}, {"same_bits", r.same_bits},
            {"selector", selector},         {"decode", decode},           {"ok", ok}};
  }

  /// Why Alg. 5 chooses as it does.
  const char* reason(double tokens, double cached) const {
    if (tokens >= hidden_kv_from(cluster())) return "K and V hide behind attention";
    return contexture::select(cluster(), tokens, cached) == RingPass::q
               ? "Q is so much smaller that it pays for the all-to-all"
               : "what Q saves around the ring, its all-to-all costs";
  }

  static std::string held(const std::vector<size_t>& tokens) {
    std::string text;
    size_t total = 0;
    for (size_t r = 0; r < tokens.size(); ++r) {
      text += fmt::format("{}rank {}: {}", r ? ", " : "", r, tokens[r]);
      total += tokens[r];
    }
    return text + fmt::format("; {} in all", total);
  }

  void tell(const RingDemoResult& r) const {
    fmt::print(
        "Parameters\n  ranks (N)         {}\n  tokens (T)        {}\n  query heads       {}\n  KV heads          {}\n"
        "  head size (D_H)   {}\n\n",
        demo.ranks, demo.tokens, demo.heads, demo.kv_heads, demo.head_dim);
    fmt::print(
        "Ground truth: causal softmax attention over all tokens at once, in float64, on one machine\n"
        "  output ({}, {}, {})\n\n",
        demo.tokens, demo.heads, demo.head_dim);
    fmt::print(
        "Sharding: {} chunks; rank i takes chunk i and chunk {} - i, an early one that sees few tokens and a late\n"
        "one that sees many\n",
        2 * demo.ranks, 2 * demo.ranks - 1);
    for (int rank = 0; rank < demo.ranks; ++rank) {
      std::vector<std::string> runs;
      for (const OwnedRun& run : r.shards) {
        if (run.rank != rank) continue;
        const int64_t last = run.first + static_cast<int64_t>(run.count) - 1;
        runs.push_back(run.count == 1 ? fmt::format("{}", last) : fmt::format("{} to {}", run.first, last));
      }
      fmt::print("  rank {}: {}\n", rank, runs.empty() ? "nothing" : fmt::format("{}", fmt::join(runs, ", ")));
    }
    const auto passed = [](const RingDemoResult::Passed& p) {
      fmt::print("  sent by each rank {} B; largest error {:.1e}: {}\n", fmt::join(p.bytes_sent, ", "), p.max_error,
                 p.max_error <= kTolerance ? "exact to f32" : "WRONG");
    };
    fmt::print("\nRing pass-KV (Alg. 2): Q stays, K and V travel around the ring\n");
    passed(r.pass_kv);
    fmt::print("Ring pass-Q (Alg. 3): K and V stay, Q travels; partial results return in an all-to-all\n");
    passed(r.pass_q);
    fmt::print("  both give the same bits: {}\n\n", r.same_bits ? "yes" : "NO");

    fmt::print("Selectors, on {} ranks of eight H100 each with Llama 3 405B, {:.0f} tokens in all\n", demo.ranks,
               kSelectorTokens);
    fmt::print("  Eq. 1: Q is smaller than K and V below a miss rate of {:.1f} %\n", 100 * smaller_q_below(cluster()));
    fmt::print("  Eq. 2: passing K and V hides behind attention from {:.0f} new tokens on\n",
               hidden_kv_from(cluster()));
    fmt::print("  Eq. 3: passing Q hides behind attention from {:.0f} tokens on\n", hidden_q_from(cluster()));
    fmt::print("  {:>9}  {:>10}  {:>10}  {:<8}  {:<8}  {}\n", "miss rate", "new", "cached", "Alg. 1", "Alg. 5", "for");
    for (const double miss : kMissRates) {
      const double tokens = miss * kSelectorTokens, cached = kSelectorTokens - tokens;
      fmt::print("  {:>7.1f} %  {:>10.0f}  {:>10.0f}  {:<8}  {:<8}  {}\n", 100 * miss, tokens, cached,
                 name(select_simple(cluster(), tokens, cached)), name(contexture::select(cluster(), tokens, cached)),
                 reason(tokens, cached));
    }
    fmt::print("\nDecode (Alg. 4): each new token goes to the next rank; its Q goes round\n");
    for (size_t i = 0; i < r.decode.size(); ++i) {
      const auto& step = r.decode[i];
      fmt::print("  step {}: rank {} has the token; {}; error {:.1e}\n", i, step.owner, held(step.held),
                 step.max_error);
    }
    if (!r.decode.empty()) fmt::print("  no rank holds more than one token more than another\n");
  }
};

}  // namespace

void add_ring_demo(CLI::App& ring) {
  CLI::App* command = ring.add_subcommand("demo", "the algorithms step by step on a small example, each checked");
  auto self = std::make_shared<Demo>();
  const auto count = [&](const char* flag, auto& value, const char* help, int64_t low, int64_t high) {
    command->add_option(flag, value, help)->check(whole_number(low, high))->option_text(fmt::format("N [{}]", value));
  };
  count("--ranks", self->demo.ranks, "ranks", 1, 64);
  count("--tokens", self->demo.tokens, "tokens of the prompt", 0, 4096);
  count("--heads", self->demo.heads, "query heads", 1, 64);
  count("--kv-heads", self->demo.kv_heads, "KV heads", 1, 64);
  command->add_option("--head-dim", self->demo.head_dim, "channels of a head, a multiple of 8")
      ->check(whole_number(8, 512))
      ->check([](const std::string& text) { return std::string(std::stoi(text) % 8 ? "not a multiple of 8" : ""); })
      ->capture_default_str();
  count("--decode", self->demo.decode_steps, "tokens that are decoded then", 0, 1024);
  count("--seed", self->demo.seed, "of the random numbers", 0, UINT32_MAX);
  command->add_flag("--json", self->json, "print one JSON object and nothing else on stdout");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
