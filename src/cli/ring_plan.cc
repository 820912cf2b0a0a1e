// What a cluster would do: the time to the first token and between tokens, before anybody has one.

#include "backends/ring/cost_model.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/svg_plot.h"

namespace contexture::cli {
namespace {

constexpr const char* kPaperModel = "llama3-405b";
constexpr double kRanks[] = {1, 2, 4, 8, 16, 32, 64, 128}, kMillion = 1e6;

struct RingPlan {
  std::string model = kPaperModel, plot;
  double tokens = 128000, cached = 0;
  CostCluster cluster{.ranks = 4};
  CostRates rates;
  bool json = false, simulate = false;

  void run() const {
    const CostModel shape = model == kPaperModel ? llama3_405b() : shape_of_file(model);
    if (json) {
      print_json(as_json(shape));
    } else {
      tell(shape);
    }
    if (plot.empty()) return;
    write_plot(plot, over_miss_rate(shape));
    write_plot(beside(plot, "-ranks"), over_ranks(shape));
  }

  static CostModel shape_of_file(const std::string& path) {
    const ModelFile file = open_model(path);
    const ModelConfig config = read_config(file.metadata);
    CostModel shape{.layers = static_cast<double>(config.layers),
                    .heads = static_cast<double>(config.heads),
                    .kv_heads = static_cast<double>(config.kv_heads),
                    .head_dim = static_cast<double>(config.head_dim)};
    for (const StoredTensor& tensor : file.tensors) {
      double elements = 1;
      for (const int64_t n : tensor.shape) elements *= static_cast<double>(n);
      shape.parameters += elements;
      shape.weight_bytes += static_cast<double>(tensor.data.size());
    }
    return shape;
  }

  PrefillCost cost(const CostModel& shape, RingPass pass, double new_tokens, double before, double ranks) const {
    return prefill_cost(shape, on(ranks), rates, pass, new_tokens, before);
  }
  /// As many of these machines.
  CostCluster on(double ranks) const {
    CostCluster machines = cluster;
    machines.ranks = ranks;
    return machines;
  }
  PrefillCost cost(const CostModel& shape, RingPass pass) const {
    return cost(shape, pass, tokens, cached, cluster.ranks);
  }
  RingSimulation played(const CostModel& shape, RingPass pass) const {
    return simulate_ring(shape, cluster, rates, pass, static_cast<size_t>(tokens), static_cast<size_t>(cached));
  }

  Json as_json(const CostModel& shape) const {
    const auto prefill = [&](RingPass pass) {
      const PrefillCost c = cost(shape, pass);
      Json j = {{"seconds", c.total()},       {"gemm_seconds", c.gemm},     {"attention_seconds", c.attention},
                {"others_seconds", c.others}, {"hidden_seconds", c.hidden}, {"exposed_seconds", c.exposed}};
      j["decode_seconds"] = decode_cost(shape, cluster, rates, tokens + cached, /*sequences=*/1, pass).total();
      if (simulate) {
        const RingSimulation s = played(shape, pass);
        j["simulation"] = {{"attention_and_communication_seconds", s.seconds},
                           {"most_exposed_seconds", s.most_exposed},
                           {"work_imbalance", s.work_imbalance},
                           {"most_tokens", s.most_tokens},
                           {"least_tokens", s.least_tokens},
                           {"most_kv_bytes", s.most_kv_bytes},
                           {"most_visiting_bytes", s.most_visiting_bytes},
                           {"sent_bytes", s.sent_bytes}};
      }
      return j;
    };
    const DecodeCost d = decode_cost(shape, cluster, rates, tokens + cached);
    Json over_ranks = Json::array();
    for (const double ranks : kRanks) {
      over_ranks.push_back({{"ranks", ranks},
                            {"pass_kv_seconds", cost(shape, RingPass::kv, tokens, cached, ranks).total()},
                            {"pass_q_seconds", cost(shape, RingPass::q, tokens, cached, ranks).total()},
                            {"million_tokens_seconds", cost(shape, RingPass::kv, kMillion, 0, ranks).total()},
                            {"decode_seconds", decode_cost(shape, on(ranks), rates, tokens + cached).total()}});
    }
    return {{"model", model},
            {"tokens", tokens},
            {"cached", cached},
            {"ranks", cluster.ranks},
            {"flops", cluster.flops},
            {"bandwidth", cluster.bandwidth},
            {"half_rate_rows", half_rate_rows(shape, cluster, rates)},
            {"pass_kv", prefill(RingPass::kv)},
            {"pass_q", prefill(RingPass::q)},
            {"choice", name(cheaper_pass(shape, cluster, rates, tokens, cached))},
            {"crossover_new_tokens", crossover(shape, cluster, rates, tokens + cached)},
            {"decode",
             {{"seconds", d.total()},
              {"gemm_seconds", d.gemm},
              {"attention_seconds", d.attention},
              {"send_seconds", d.send},
              {"all_to_all_seconds", d.all_to_all}}},
            {"over_ranks", over_ranks}};
  }

  static std::string time(double seconds) {
    if (seconds >= 1) return fmt::format("{:.2f} s", seconds);
    return seconds >= 1e-3 ? fmt::format("{:.1f} ms", 1e3 * seconds) : fmt::format("{:.1f} us", 1e6 * seconds);
  }

  void tell(const CostModel& shape) const {
    fmt::print(
        "{}: {:.0f} layers, {:.0f} heads on {:.0f}; {:.0f} new tokens, {:.0f} cached, {:.0f} ranks of {:.3g} "
        "operations/s "
        "and {:.3g} B/s\n\n",
        model, shape.layers, shape.heads, shape.kv_heads, tokens, cached, cluster.ranks, cluster.flops,
        cluster.bandwidth);
    fmt::print("{:<9} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}\n", "", "first token", "products", "attention",
               "others", "hidden", "exposed", "each other");
    for (const RingPass pass : {RingPass::kv, RingPass::q}) {
      const PrefillCost c = cost(shape, pass);
      const DecodeCost each = decode_cost(shape, cluster, rates, tokens + cached, /*sequences=*/1, pass);
      fmt::print("{:<9} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12} {:>12}\n", name(pass), time(c.total()), time(c.gemm),
                 time(c.attention), time(c.others), time(c.hidden), time(c.exposed), time(each.total()));
    }
    const double all = tokens + cached, from = crossover(shape, cluster, rates, all);
    fmt::print("\nchoice: {}; ", name(cheaper_pass(shape, cluster, rates, tokens, cached)));
    if (from > all) {
      fmt::print("of {:.0f} tokens pass-q costs less whatever is cached\n", all);
    } else {
      fmt::print("of {:.0f} tokens pass-kv costs no more from {:.0f} new ones on ({:.2f} %)\n", all, from,
                 100 * from / all);
    }
    const DecodeCost d = decode_cost(shape, cluster, rates, all);
    fmt::print(
        "each other token of one sequence, with pass-q: {} (products {}, attention {}, ring {}, all-to-all {})\n",
        time(d.total()), time(d.gemm), time(d.attention), time(d.send), time(d.all_to_all));
    if (simulate) tell_simulation(shape);
    tell_ranks(shape);
    explain(shape);
  }

  /// What other numbers of ranks would make of it; of the cheaper way, where its time goes.
  void tell_ranks(const CostModel& shape) const {
    const double all = tokens + cached, one = cost(shape, RingPass::kv, tokens, cached, 1).total();
    fmt::print("\n{:>6} {:>11} {:>11} {:>10} {:>10} {:>10} {:>8} {:>8} {:>13} {:>12}\n", "ranks", "pass-kv", "pass-q",
               "of ideal", "products", "attention", "others", "exposed", "10^6 tokens", "a token");
    for (const double ranks : kRanks) {
      const PrefillCost kv = cost(shape, RingPass::kv, tokens, cached, ranks),
                        q = cost(shape, RingPass::q, tokens, cached, ranks), &best = q.total() < kv.total() ? q : kv;
      const auto share = [&](double part) { return fmt::format("{:.0f} %", 100 * part / best.total()); };
      fmt::print("{:>6.0f} {:>11} {:>11} {:>10} {:>10} {:>10} {:>8} {:>8} {:>13} {:>12}\n", ranks, time(kv.total()),
                 time(q.total()), share(one / ranks), share(best.gemm), share(best.attention), share(best.others),
                 share(best.exposed), time(cost(shape, RingPass::kv, kMillion, 0, ranks).total()),
                 time(decode_cost(shape, on(ranks), rates, all).total()));
    }
  }

  void explain(const CostModel& shape) const {
    const auto sixteen = [&](double new_tokens, double before) {
      return cost(shape, RingPass::kv, new_tokens, before, 16);
    };
    const PrefillCost here = sixteen(tokens, cached), million = sixteen(kMillion, 0);
    double hides = 1;  // ranks
    while (hides < 1024 && cost(shape, RingPass::kv, tokens, cached, 2 * hides).exposed == 0) hides *= 2;
    fmt::print(
        "\nPrefill. Products and attention are shared out. Not shared out: each rank reads all weights, so that "
        "products\n"
        "of {:.0f} tokens a rank reach half of their rate; and each goes through what the others hold (others), which "
        "is "
        "{:.0f} %\nof the time on 16 ranks. ",
        half_rate_rows(shape, cluster, rates), 100 * here.others / here.total());
    if (hides > 1) {
      fmt::print("K and V hide behind attention on up to {:.0f} ranks: a rank's attention of a step\n", hides);
      fmt::print("shrinks with the square of their number, what it passes on only with the number.\n");
    } else {
      fmt::print("K and V do not hide behind attention: so few new tokens compute for too short.\n");
    }
    fmt::print(
        "A million tokens. Attention grows with the square of the tokens, and is {:.0f} % of the time on 16 ranks "
        "({:.0f} %\nabove); what the others hold takes {:.0f} %, so ranks pay better.\n",
        100 * million.attention / million.total(), 100 * here.attention / here.total(),
        100 * million.others / million.total());
    const DecodeCost sixteen_ranks = decode_cost(shape, on(16), rates, tokens + cached);
    fmt::print(
        "Decode. Every rank reads all weights ({}), whatever their number; each further rank adds a step of the ring\n"
        "({}) and a block of queries ({} at least) to every layer. More ranks hold more, and are slower: {} a token\n"
        "on 16.\n",
        time(sixteen_ranks.gemm), time(rates.decode_send_latency), time(rates.attention_latency),
        time(sixteen_ranks.total()));
    fmt::print(
        "Shares of the peaks are fitted on up to 4 nodes of eight H100 (docs/context_parallel.md). They do not know "
        "how\n"
        "attention slows down on small pieces, or networks that are shared: what was not measured will rather take "
        "longer.\n");
  }

  void tell_simulation(const CostModel& shape) const {
    for (const RingPass pass : {RingPass::kv, RingPass::q}) {
      const RingSimulation s = played(shape, pass);
      fmt::print(
          "{} played through: attention and communication {}, the rank that waits longest waits {}; work within "
          "{:.2f} % of even; {} to {} tokens and up to {} of K and V a rank, {} visiting; {} sent in all\n",
          name(pass), time(s.seconds), time(s.most_exposed), 100 * s.work_imbalance, s.least_tokens, s.most_tokens,
          human_bytes(s.most_kv_bytes), human_bytes(s.most_visiting_bytes), human_bytes(s.sent_bytes));
    }
  }

  SvgPlot over_miss_rate(const CostModel& shape) const {
    const double all = tokens + cached;
    SvgPlot svg{fmt::format("{:.0f} tokens on {:.0f} ranks", all, cluster.ranks),
                "new tokens, % of all",
                "s to the first token",
                {}};
    for (const RingPass pass : {RingPass::kv, RingPass::q}) {
      SvgPlot::Curve curve{name(pass), {}};
      for (const double miss : {0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 40.0, 50.0, 60.0, 70.0, 80.0, 90.0, 100.0}) {
        const double fresh = all * miss / 100;
        curve.points.emplace_back(miss, cost(shape, pass, fresh, all - fresh, cluster.ranks).total());
      }
      svg.curves.push_back(curve);
    }
    return svg;
  }

  SvgPlot over_ranks(const CostModel& shape) const {
    SvgPlot svg{fmt::format("{:.0f} new tokens, {:.0f} cached", tokens, cached), "ranks", "s to the first token", {}};
    const double one = cost(shape, RingPass::kv, tokens, cached, 1).total();
    SvgPlot::Curve ideal{"one rank / N", {}};
    for (const RingPass pass : {RingPass::kv, RingPass::q}) {
      SvgPlot::Curve curve{name(pass), {}};
      for (const double ranks : {1, 2, 3, 4, 6, 8, 12, 16}) {
        curve.points.emplace_back(ranks, cost(shape, pass, tokens, cached, ranks).total());
        if (pass == RingPass::kv) ideal.points.emplace_back(ranks, one / ranks);
      }
      svg.curves.push_back(curve);
    }
    svg.curves.push_back(ideal);
    return svg;
  }
};

}  // namespace

void add_ring_plan(CLI::App& ring) {
  CLI::App* command = ring.add_subcommand("plan", "how long prefill and decode would take over ranks, and which way");
  auto self = std::make_shared<RingPlan>();
  const auto rate = [&](const char* flag, double& value, double low, double high, const char* help) {
    command->add_option(flag, value, help)->check(number(low, high))->capture_default_str();
  };
  command->add_option("-m,--model", self->model, "a model file, or llama3-405b, the paper's")
      ->option_text(fmt::format("PATH [{}]", kPaperModel));
  const auto count = [&](const char* flag, double& value, int64_t low, int64_t high, const char* help) {
    command->add_option(flag, value, help)
        ->check(whole_number(low, high))
        ->option_text(fmt::format("N [{:.0f}]", value));
  };
  count("--tokens", self->tokens, 1, int64_t{1} << 32, "new tokens");
  count("--cached", self->cached, 0, int64_t{1} << 32, "tokens that the ranks hold already");
  count("--ranks", self->cluster.ranks, 1, 1024, "ranks");
  rate("--flops", self->cluster.flops, 1, 1e20, "peak operations/s of a rank");
  rate("--bandwidth", self->cluster.bandwidth, 1, 1e18, "peak bytes/s from a rank to the next");
  rate("--memory-bandwidth", self->cluster.memory_bandwidth, 1, 1e18, "peak bytes/s of a rank's memory");
  rate("--gemm-share", self->rates.gemm, 1e-6, 1, "share of the operations that products with weights reach");
  rate("--attention-share", self->rates.attention, 1e-6, 1, "share that attention reaches");
  rate("--weights-share", self->rates.weights, 1e-6, 1, "share of the memory's bandwidth that reading weights reaches");
  rate("--others-share", self->rates.others, 1e-6, 1, "share at which a rank goes through the other ranks' K and V");
  rate("--send-share", self->rates.send, 1e-6, 1, "share of the bandwidth that a step of the ring reaches");
  rate("--send-latency", self->rates.send_latency, 0, 1e3, "seconds of a step of the ring whatever its bytes");
  rate("--all-to-all-share", self->rates.all_to_all, 1e-6, 1, "share of the bandwidth that an all-to-all reaches");
  rate("--all-to-all-latency", self->rates.all_to_all_latency, 0, 1e3, "seconds of an all-to-all whatever its bytes");
  command->add_flag("--simulate", self->simulate,
                    "play every rank's schedule, memory and bytes through, without tensors");
  command
      ->add_option("--plot", self->plot,
                   "writes the time over miss rates as a picture, and over ranks to FILE-ranks.svg")
      ->option_text("FILE.svg");
  command->add_flag("--json", self->json, "print one JSON object and nothing else on stdout");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
