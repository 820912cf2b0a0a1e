// What lies between products and attention, a row or a head at a time, at the shapes of Llama 3.2 1B; each on one
// thread, since the forward pass gives each token to one. And what runs in fixed-point numbers.

#include <fmt/format.h>

#include "base/thread_pool.h"
#include "kernels/elementwise.h"
#include "kernels/fixed_linear.h"
#include "kernels/hadamard.h"
#include "kernels/packed_matrix.h"
#include "kernels/quantise.h"
#include "kernels/rope.h"
#include "rates.h"

namespace contexture {
namespace {

constexpr size_t kColumns = 2048, kFeedForward = 8192, kHeads = 32, kHeadDim = 64;

std::vector<float> some_floats(size_t count) {
  std::vector<float> floats(count);
  for (size_t i = 0; i < count; ++i) floats[i] = static_cast<float>(i % 37) / 16 - 1;
  return floats;
}

// Operations are counted as multiplications and additions; an exponential or a root counts as one.

void run_rms_norm(benchmark::State& state) {
  const std::vector<float> x = some_floats(kColumns), weight = x;
  std::vector<float> out(kColumns);
  for (auto _ : state) {
    rms_norm(x.data(), weight.data(), 1e-5f, kColumns, out.data());
    benchmark::DoNotOptimize(out.data());
  }
  set_rates(state, 2 * kColumns * sizeof(float), 4 * kColumns);
}
BENCHMARK(run_rms_norm)->Name("rms_norm/2048");

/// What overwrites its gate gets it anew each time: numbers that shrink to nothing have a speed of their own.
template <class Kernel>
void run_gated(benchmark::State& state, const Kernel& kernel) {
  const std::vector<float> fresh = some_floats(kFeedForward), up = fresh;
  std::vector<float> gate(kFeedForward);
  for (auto _ : state) {
    std::copy(fresh.begin(), fresh.end(), gate.begin());
    kernel(gate.data(), up.data(), kFeedForward);
    benchmark::DoNotOptimize(gate.data());
  }
  set_rates(state, 2 * kFeedForward * sizeof(float), 5 * kFeedForward);
}
BENCHMARK_CAPTURE(run_gated, swiglu, swiglu)->Name("swiglu/8192");
BENCHMARK_CAPTURE(run_gated, geglu, geglu)->Name("geglu/8192");

void run_add_scaled(benchmark::State& state) {
  std::vector<float> x = some_floats(kColumns);
  const std::vector<float> y = x;
  for (auto _ : state) {
    add_scaled(x.data(), y.data(), 1e-6f, kColumns);
    benchmark::DoNotOptimize(x.data());
  }
  set_rates(state, 2 * kColumns * sizeof(float), 2 * kColumns);
}
BENCHMARK(run_add_scaled)->Name("add_scaled/2048");

void run_softcap(benchmark::State& state) {
  std::vector<float> x = some_floats(kColumns);
  for (auto _ : state) {
    softcap(x.data(), 50, kColumns);
    benchmark::DoNotOptimize(x.data());
  }
  set_rates(state, kColumns * sizeof(float), 3 * kColumns);
}
BENCHMARK(run_softcap)->Name("softcap/2048");

void run_rope(benchmark::State& state, RopeStyle style) {
  std::vector<float> x = some_floats(kHeads * kHeadDim), table(kHeadDim);
  const int64_t position = 1000;
  const std::vector<double> frequencies(kHeadDim / 2, 0.01);
  rope_table({&position, 1}, frequencies, table.data());
  for (auto _ : state) {
    rope(x.data(), kHeads, kHeadDim, kHeadDim, style, table.data());
    benchmark::DoNotOptimize(x.data());
  }
  set_rates(state, x.size() * sizeof(float), 3 * x.size());
}
BENCHMARK_CAPTURE(run_rope, interleaved, RopeStyle::interleaved)->Name("rope/interleaved/32x64");
BENCHMARK_CAPTURE(run_rope, halves, RopeStyle::halves)->Name("rope/halves/32x64");

void run_hadamard(benchmark::State& state) {
  std::vector<float> x = some_floats(kHeads * kHeadDim);
  for (auto _ : state) {
    hadamard(x.data(), kHeads, kHeadDim);
    benchmark::DoNotOptimize(x.data());
  }
  set_rates(state, x.size() * sizeof(float), 7 * x.size());  // log2(64) additions and a multiplication
}
BENCHMARK(run_hadamard)->Name("hadamard/32x64");

void run_quantise(benchmark::State& state) {
  const auto columns = static_cast<size_t>(state.range(0));
  const std::vector<float> x = some_floats(columns);
  std::vector<ActivationBlock> out(blocks_of(columns));
  for (auto _ : state) {
    quantise_row(x.data(), columns, out.data());
    benchmark::DoNotOptimize(out.data());
  }
  set_rates(state, columns * sizeof(float), 3 * columns);
}
BENCHMARK(run_quantise)->Name("quantise")->Arg(kColumns)->Arg(kFeedForward);

/// Loading a model: 16 rows of a file side by side.
void run_pack(benchmark::State& state, Format format) {
  const Matrix shape{format, PackedMatrix::panel_rows, kColumns, nullptr};
  const std::vector<std::byte> bytes = some_bytes(shape.bytes());
  const Matrix matrix{format, shape.rows, kColumns, bytes.data()};
  std::vector<std::byte> panel(packed_shape(matrix).panel_bytes());
  for (auto _ : state) {
    pack_panel(matrix, 0, panel.data());
    benchmark::DoNotOptimize(panel.data());
  }
  set_rates(state, bytes.size(), 0);
}
BENCHMARK_CAPTURE(run_pack, q4_0, Format::q4_0)->Name("pack/q4_0/16x2048");
BENCHMARK_CAPTURE(run_pack, q8_0, Format::q8_0)->Name("pack/q8_0/16x2048");
BENCHMARK_CAPTURE(run_pack, q4_k, Format::q4_k)->Name("pack/q4_k/16x2048");
BENCHMARK_CAPTURE(run_pack, f16, Format::f16)->Name("pack/f16/16x2048");

/// A linear of a compiled graph, with all threads; its weights are in a cache.
void run_fixed_linear(benchmark::State& state, int bits, size_t block) {
  const auto tokens = static_cast<size_t>(state.range(0));
  constexpr size_t kPanels = kColumns / 16, kUnits = kColumns / FixedUnit::columns;
  const std::vector<std::byte> quants = some_bytes(kPanels * kUnits * (bits == 4 ? 256 : 512));
  const std::vector<int32_t> sums(kPanels * 16);
  const std::vector<uint8_t> factors(block ? kPanels * (kColumns / block) * 16 : 0, 1);
  const std::vector<FixedFactor> scale(kColumns, fixed_factor(1e-4));
  const FixedLinear linear{.rows = kColumns,
                           .columns = kColumns,
                           .bits = bits,
                           .block = block,
                           .quants = quants.data(),
                           .sums = sums.data(),
                           .factors = factors.data(),
                           .scale = scale.data(),
                           .input_zero = 32768,
                           .output_zero = 32768};
  const std::vector<uint16_t> x(tokens * kColumns, 33000);
  std::vector<uint16_t> out(tokens * kColumns);
  FixedScratch scratch;
  scratch.reserve(tokens, kColumns);
  ThreadPool pool(physical_cores());
  for (auto _ : state) {
    split_into_planes(x.data(), tokens, kColumns, scratch, pool);
    fixed_linear(linear, scratch, tokens, out.data(), pool);
    benchmark::DoNotOptimize(out.data());
  }
  set_rates(state, quants.size() + factors.size(), 2 * kColumns * kColumns * tokens);
}
BENCHMARK_CAPTURE(run_fixed_linear, 4, 4, 0)->Name("fixed_linear/4 bits/2048x2048")->Arg(1)->Arg(128)->UseRealTime();
BENCHMARK_CAPTURE(run_fixed_linear, 4b, 4, 32)
    ->Name("fixed_linear/4 bits in blocks/2048x2048")
    ->Arg(1)
    ->Arg(128)
    ->UseRealTime();
BENCHMARK_CAPTURE(run_fixed_linear, 8, 8, 0)->Name("fixed_linear/8 bits/2048x2048")->Arg(1)->Arg(128)->UseRealTime();

}  // namespace
}  // namespace contexture
