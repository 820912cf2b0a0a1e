// What communication hides behind attention, measured on a network that is slowed down, beside what Eq. 2 and Eq. 3 of
// the paper predict.

#include <fmt/format.h>

#include "backends/ring/overlap.h"
#include "cli/command.h"
#include "cli/svg_plot.h"

namespace contexture::cli {
namespace {

struct RingOverlap {
  size_t ranks = 2;
  double latency = 0;
  std::string plot;
  int tries = 5;
  bool json = false;

  /// Along an axis of new tokens (pass-KV) or of all tokens (pass-Q), with the threshold of the equation in its midst.
  struct Series {
    RingPass pass;
    const char* equation;
    double flops, bandwidth, threshold;
    struct Point {
      OverlapCase slow;
      Overlap predicted, measured;
    };
    std::vector<Point> points;
  };
  static constexpr size_t kCached = 4096, kNew = 256;

  void run() const {
    catch_interrupts();
    const Series kv = measure_kv(), q = measure_q();
    if (json) {
      print_json({{"ranks", ranks}, {"latency", latency}, {"pass_kv", as_json(kv)}, {"pass_q", as_json(q)}});
    } else {
      tell(kv);
      tell(q);
    }
    if (plot.empty()) return;
    write_plot(plot, drawn(kv));
    write_plot(beside(plot, "-pass-q"), drawn(q));
  }

  Series measure_kv() const {
    Series series = begin({.pass = RingPass::kv, .new_tokens = 512 * ranks, .cached_tokens = kCached, .ranks = ranks},
                          "Eq. 2", 512);
    for (const size_t tokens : {32, 64, 128, 192, 256, 384, 512, 640, 768, 1024}) {
      add(series, {.pass = RingPass::kv, .new_tokens = tokens, .cached_tokens = kCached});
    }
    measure(series);
    return series;
  }

  Series measure_q() const {
    Series series =
        begin({.pass = RingPass::q, .new_tokens = kNew, .cached_tokens = 2048 * ranks, .ranks = ranks}, "Eq. 3", 2048);
    for (const size_t tokens : {256, 512, 768, 1024, 1280, 1536, 2048, 2560, 3072, 4096}) {
      add(series, {.pass = RingPass::q, .new_tokens = kNew, .cached_tokens = tokens - kNew});
    }
    measure(series);
    return series;
  }

  /// With a bandwidth that puts the threshold at so many tokens.
  Series begin(const OverlapCase& calibrated, const char* equation, double threshold) const {
    Series series{.pass = calibrated.pass,
                  .equation = equation,
                  .flops = flops_of(calibrated, measure_overlap(calibrated, tries)),
                  .bandwidth = 0,
                  .threshold = threshold,
                  .points = {}};
    series.bandwidth = bandwidth_that_hides(calibrated, series.flops, threshold);
    return series;
  }

  void add(Series& series, OverlapCase slow) const {
    slow.ranks = ranks;
    slow.latency = latency;
    slow.bandwidth = series.bandwidth;
    series.points.push_back({slow, predict_overlap(slow, series.flops), measure_overlap(slow, 1)});
  }

  /// Round after round, so that what disturbs for a while does not fall on one point alone.
  void measure(Series& series) const {
    for (int round = 1; round < tries && !interrupted(); ++round) {
      for (Series::Point& point : series.points) {
        const Overlap other = measure_overlap(point.slow, 1);
        if (other.disturbance() < point.measured.disturbance()) point.measured = other;
      }
    }
  }

  static size_t tokens_of(const OverlapCase& slow) {
    return slow.pass == RingPass::kv ? slow.new_tokens : slow.new_tokens + slow.cached_tokens;
  }
  static std::string what(const Series& s) {
    return s.pass == RingPass::kv ? fmt::format("new tokens, with {} cached", kCached)
                                  : fmt::format("tokens, of which {} are new", kNew);
  }

  static Json as_json(const Series& s) {
    Json points = Json::array();
    for (const Series::Point& p : s.points) {
      points.push_back({{"new_tokens", p.slow.new_tokens},
                        {"cached_tokens", p.slow.cached_tokens},
                        {"in_flight_seconds", p.measured.in_flight},
                        {"predicted_exposed_seconds", p.predicted.exposed},
                        {"measured_exposed_seconds", p.measured.exposed}});
    }
    return {{"flops", s.flops}, {"bandwidth", s.bandwidth}, {"hidden_from", s.threshold}, {"points", points}};
  }

  void tell(const Series& s) const {
    fmt::print(
        "{} over {} ranks of {:.3g} operations/s (measured) and {:.3g} B/s: hidden from {:.0f} tokens on ({})\n"
        "{:>8} {:>14} {:>20} {:>20}   ({})\n",
        name(s.pass), ranks, s.flops, s.bandwidth, s.threshold, s.equation, "tokens", "in flight, ms",
        "exposed, predicted", "exposed, measured", what(s));
    for (const Series::Point& p : s.points) {
      fmt::print("{:>8} {:>14.2f} {:>20.2f} {:>20.2f}\n", tokens_of(p.slow), 1e3 * p.measured.in_flight,
                 1e3 * p.predicted.exposed, 1e3 * p.measured.exposed);
    }
    fmt::print("\n");
  }

  static SvgPlot drawn(const Series& s) {
    SvgPlot svg{fmt::format("{}: hidden from {:.0f} tokens on ({})", name(s.pass), s.threshold, s.equation),
                what(s),
                "ms of communication",
                {}};
    SvgPlot::Curve flight{"in flight", {}}, predicted{"exposed, predicted", {}}, measured{"exposed, measured", {}};
    for (const Series::Point& p : s.points) {
      const double x = static_cast<double>(tokens_of(p.slow));
      flight.points.emplace_back(x, 1e3 * p.measured.in_flight);
      predicted.points.emplace_back(x, 1e3 * p.predicted.exposed);
      measured.points.emplace_back(x, 1e3 * p.measured.exposed);
    }
    svg.curves = {flight, predicted, measured};
    return svg;
  }
};

}  // namespace

void add_ring_overlap(CLI::App& ring) {
  CLI::App* command = ring.add_subcommand(
      "overlap", "what communication hides behind attention: measured on a slow network, beside what is predicted");
  auto self = std::make_shared<RingOverlap>();
  command->add_option("--ranks", self->ranks, "ranks, each of which wants a core of its own")
      ->check(whole_number(2, 16))
      ->option_text("N [2]");
  command->add_option("--latency", self->latency, "seconds that a message takes beside its bytes")
      ->check(number(0, 1))
      ->option_text("SECONDS [0]");
  command->add_option("--tries", self->tries, "measurements of each point, of which the least disturbed counts")
      ->check(whole_number(1, 1000))
      ->option_text("N [5]");
  command->add_option("--plot", self->plot, "draws pass-KV as a picture, and pass-Q to FILE-pass-q.svg")
      ->option_text("FILE.svg");
  command->add_flag("--json", self->json, "print one JSON object and nothing else on stdout");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
