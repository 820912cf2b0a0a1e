#include <algorithm>
#include <iostream>
#include <span>

#include "base/aligned.h"
#include "base/error.h"
#include "cli/command.h"
#include "cli/host.h"
#include "cli/svg_plot.h"
#include "kernels/machine.h"
#include "kernels/matmul.h"
#include "verify/speed_test.h"

namespace contexture::cli {
namespace {

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

struct Bench {
  ModelFlags model;
  CacheFlags cache;
  RingFlags ring;
  size_t decode = 32, sequences = 1, repeats = 5, chunk = 512;
  std::vector<size_t> prompts = {512}, depths = {0};
  std::string plot, target;

  double bandwidth = 0;
  SvgPlot::Curve decoded{"decode", {}}, prefilled{"prefill", {}};  // against depth
  std::vector<SvgPlot::Curve> by_prompt;                           // against the prompt's length, one a depth

  void run() {
    catch_interrupts();
    if (!target.empty()) limit_kernel_target(target);
    with_host({model, cache, ring}, [this](Host& host) {
      host.start(options(*host.opened()));
      measure_machine(*host.executor().threads());
      measure(host);
    });
  }

  RunOptions options(const OpenedModel& opened) const {
    RunOptions options = cache.options(opened.file.metadata);
    const size_t deepest = *std::max_element(depths.begin(), depths.end());
    const size_t prefill = *std::max_element(prompts.begin(), prompts.end());
    options.cache.context = std::max(options.cache.context, deepest + std::max<size_t>(1, std::max(prefill, decode)));
    options.cache.sequences = options.logit_rows = sequences;
    options.chunk = std::max(chunk, sequences);
    return options;
  }

  void measure(Host& host) {
    if (!model.json) {
      fmt::print("{}, {}\n\n{:<8} {:>7} {:>7} {:>12} {:>10} {:>14} {:>8}\n", model.model,
                 contexture::describe(host.plan()->cache), "test", "tokens", "depth", "tokens/s", "GB/s", "MB a token",
                 "share");
    }
    for (const size_t depth : depths) {
      by_prompt.push_back({fmt::format("depth {}", depth), {}});
      for (const size_t tokens : prompts) {
        if (tokens > 0) measure_prefill(host, tokens, depth);
      }
      if (decode > 0) measure_decode(host, depth);
    }
    if (!plot.empty()) write_plot(plot, drawn());
  }

  /// What the machine gives, in this run: read bandwidth over a gigabyte, multiply-adds in registers.
  void measure_machine(ThreadPool& pool) {
    AlignedArray<std::byte> memory(size_t{1} << 30);
    std::fill_n(memory.data(), memory.size(), std::byte{1});
    bandwidth = read_bandwidth(memory.span(), pool);
    const double peak = multiply_add_peak(pool);
    if (!model.json) {
      fmt::print("{} threads, {}: {:.1f} GB/s read, {:.0f} GFLOP/s of f32 multiply-adds\n", pool.threads(),
                 kernel_target(), bandwidth / 1e9, peak / 1e9);
    }
  }

  /// The median of the repeats, after one that warms up.
  template <class Measure>
  double seconds_of(const Measure& measure) const {
    std::vector<double> seconds;
    for (size_t i = 0; i <= repeats; ++i) {
      const double taken = measure();
      if (interrupted()) fail("interrupted");
      if (i > 0) seconds.push_back(taken);
    }
    return median(seconds);
  }

  void measure_prefill(Host& host, size_t tokens, size_t depth) {
    SpeedTest test(host.executor());
    const double seconds = seconds_of([&] { return test.prefill(tokens, depth); });
    const double speed = static_cast<double>(tokens) / seconds;
    prefilled.points.emplace_back(depth, speed);
    by_prompt.back().points.emplace_back(tokens, speed);
    // A step reads all weights once, and each of its tokens the context before it.
    const double steps = static_cast<double>((tokens + chunk - 1) / chunk);
    const double weights = static_cast<double>(host.model()->bytes_per_token()) * steps;
    report(host, "prefill", tokens, depth, speed, weights / static_cast<double>(tokens));
  }

  void measure_decode(Host& host, size_t depth) {
    SpeedTest test(host.executor());
    const double seconds = seconds_of([&] { return test.decode(decode, depth, sequences); });
    const double speed = static_cast<double>(decode * sequences) / seconds;
    decoded.points.emplace_back(depth, speed);
    report(host, "decode", decode, depth, speed,
           bytes_of_decoded_token(*host.model(), host.plan()->cache, depth + decode / 2, sequences));
  }

  void report(Host& host, std::string_view test, size_t tokens, size_t depth, double speed, double bytes) const {
    const CachePlan& plan = host.plan()->cache;
    const double share = bytes * speed / bandwidth;
    if (model.json) {
      print_json({{"test", test},
                  {"tokens", tokens},
                  {"depth", depth},
                  {"k_format", name(plan.shape.k_format)},
                  {"v_format", name(plan.shape.v_format)},
                  {"cache", plan.layout},
                  {"threads", host.executor().threads()->threads()},
                  {"sequences", sequences},
                  {"tokens_per_second", speed},
                  {"bytes_per_token", bytes},
                  {"read_bandwidth_gbps", bandwidth / 1e9},
                  {"bandwidth_share", share}});
      return;
    }
    fmt::print("{:<8} {:>7} {:>7} {:>12.2f} {:>10.2f} {:>14.1f} {:>6.0f} %\n", test, tokens, depth, speed,
               bytes * speed / 1e9, bytes / 1e6, 100 * share);
    std::cout << std::flush;
  }

  /// Against the prompt's length where there are several, else against depth.
  SvgPlot drawn() const {
    if (prompts.size() > 1)
      return {"Speed against length of the prompt", "tokens of the prompt", "tokens/s", by_prompt};
    SvgPlot svg{"Speed against depth of context", "tokens of context", "tokens/s", {}};
    for (const SvgPlot::Curve& curve : {prefilled, decoded}) {
      if (!curve.points.empty()) svg.curves.push_back(curve);
    }
    return svg;
  }
};

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* command =
      app.add_subcommand("bench", "speed of prefill and decode at any depth, against this machine's read bandwidth");
  auto self = std::make_shared<Bench>();
  self->model.add_to(*command);
  self->cache.add_to(*command);
  self->ring.add_to(*command);
  const auto count = [&](const char* name, size_t& value, int64_t least, const char* what) {
    command->add_option(name, value, what)->check(whole_number(least, kManyTokens))->capture_default_str();
  };
  const auto list = [&](const char* name, std::vector<size_t>& values, const char* what) {
    command->add_option(name, values, what)
        ->delimiter(',')
        ->check(whole_number(0, kManyTokens))
        ->option_text("N,N,...")
        ->capture_default_str();
  };
  list("-p,--prefill", self->prompts, "tokens of the prompt (default: 512); 0: not measured");
  count("-n,--decode", self->decode, 0, "tokens decoded; 0: not measured");
  count("--sequences", self->sequences, 1, "sequences decoded together");
  count("-r,--repeats", self->repeats, 1, "measurements a test, of which the median is told; one more warms up");
  count("--chunk", self->chunk, 1, "tokens of a prompt that go through the model together");
  list("-d,--depth", self->depths, "tokens of context that are there already (synthetic ones)");
  command
      ->add_option("--target", self->target, "the best instruction set that may be used, to measure a lesser machine")
      ->option_text("AVX2|AVX3|...");
  command
      ->add_option("--plot", self->plot,
                   "writes speed against depth, or against the prompt's length where there are several, as a picture")
      ->option_text("FILE.svg");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
