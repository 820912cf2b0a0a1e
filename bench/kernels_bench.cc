// Products and attention at the shapes of Llama 3.2 1B. Counters: bytes read (of weights, of K and V) and operations a
// second, to hold against the machine's read bandwidth and peak.

#include <benchmark/benchmark.h>

#include <cmath>
#include <random>
#include <vector>

#include "kernels/attention.h"
#include "kernels/machine.h"
#include "kernels/matmul.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

std::vector<std::byte> some_bytes(size_t count) {
  // Small quants, scales that are numbers in every format: speed does not depend on the values.
  return std::vector<std::byte>(count, std::byte{0x11});
}

void set_rates(benchmark::State& state, double bytes, double operations) {
  const double runs = static_cast<double>(state.iterations());
  state.counters["bytes"] = benchmark::Counter(bytes * runs, benchmark::Counter::kIsRate);
  state.counters["operations"] = benchmark::Counter(operations * runs, benchmark::Counter::kIsRate);
}

/// The feed-forward's first product, 8192 × 2048, over enough copies that weights come from memory.
void BM_Product(benchmark::State& state, Format format) {
  const size_t tokens = static_cast<size_t>(state.range(0)), rows = 8192, columns = 2048, copies = 24;
  PackedMatrix w{format, rows, columns, nullptr};
  const size_t bytes = w.bytes();
  const std::vector<std::byte> weights = some_bytes(bytes * copies);
  const std::vector<float> x(tokens * columns, 0.5f);
  std::vector<float> out(tokens * rows);
  ThreadPool pool(physical_cores());
  MatmulScratch scratch(tokens, columns);
  size_t copy = 0;
  for (auto _ : state) {
    w.data = weights.data() + bytes * (copy++ % copies);
    const Product product{&w, out.data()};
    matmul({&product, 1}, x.data(), tokens, scratch, pool);
  }
  set_rates(state, static_cast<double>(bytes), 2.0 * static_cast<double>(rows * columns * tokens));
}
BENCHMARK_CAPTURE(BM_Product, q4_0, Format::q4_0)->Arg(1)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(BM_Product, q8_0, Format::q8_0)->Arg(1)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(BM_Product, q4_k, Format::q4_k)->Arg(1)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(BM_Product, q6_k, Format::q6_k)->Arg(1)->Arg(512)->UseRealTime();
BENCHMARK_CAPTURE(BM_Product, f16, Format::f16)->Arg(1)->Arg(512)->UseRealTime();

/// One layer's attention: 32 query heads, 8 KV heads of 64, the last `queries` tokens of `depth`.
void BM_Attention(benchmark::State& state, Format format) {
  const size_t depth = static_cast<size_t>(state.range(0)), queries = static_cast<size_t>(state.range(1));
  const AttentionShape shape{32, 8, 64, 0.125f};
  const size_t row = kv_row_bytes(format, shape.head_dim);
  const std::vector<std::byte> k = some_bytes(depth * shape.kv_heads * row), v = k;
  const TokenSpan span{format, format, k.data(), v.data(), row, row * depth, row, row * depth, depth, 0, 1};
  const std::vector<float> q(queries * shape.heads * shape.head_dim, 0.1f);
  std::vector<float> out(q.size());
  std::vector<int64_t> positions(queries);
  for (size_t i = 0; i < queries; ++i) positions[i] = static_cast<int64_t>(depth - queries + i);
  ThreadPool pool(physical_cores());
  AttentionScratch scratch(shape, pool.threads());
  const AttentionQueries all{q.data(), out.data(), positions, {&span, 1}};
  for (auto _ : state) attend({&all, 1}, shape, scratch, pool);
  set_rates(state, 2.0 * static_cast<double>(depth * shape.kv_heads * row),
            4.0 * static_cast<double>(queries * depth * shape.heads * shape.head_dim));
}
BENCHMARK_CAPTURE(BM_Attention, f16, Format::f16)->Args({1024, 1})->Args({4096, 1})->Args({16384, 1})->Args({2048, 512})->UseRealTime();
BENCHMARK_CAPTURE(BM_Attention, q8_0, Format::q8_0)
    ->Args({1024, 1})
    ->Args({4096, 1})
    ->Args({16384, 1})
    ->Args({2048, 512})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Attention, q4_0, Format::q4_0)
    ->Args({1024, 1})
    ->Args({4096, 1})
    ->Args({16384, 1})
    ->Args({2048, 512})
    ->UseRealTime();
BENCHMARK_CAPTURE(BM_Attention, f32, Format::f32)->Args({4096, 1})->Args({2048, 512})->UseRealTime();

void BM_ReadBandwidth(benchmark::State& state) {
  const std::vector<std::byte> memory = some_bytes(size_t{1} << 30);
  ThreadPool pool(physical_cores());
  double best = 0;
  for (auto _ : state) best = std::max(best, read_bandwidth(memory, pool));
  state.counters["bytes"] = best;
}
BENCHMARK(BM_ReadBandwidth)->Iterations(2);

}  // namespace
}  // namespace contexture
