// Products and attention at the shapes of Llama 3.2 1B, with all threads, and the machine's two limits to hold them
// against. Which are run is chosen by name:
//   build/kernels_bench --benchmark_filter='product/q4_0|machine'

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

#include "base/thread_pool.h"
#include "kernels/attention.h"
#include "kernels/machine.h"
#include "kernels/matmul.h"
#include "rates.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// As many bytes of weights as benchmarks have asked for so far: filling them anew for each would take longer than it.
const std::byte* weight_bytes(size_t count) {
  static std::vector<std::byte> bytes;
  if (bytes.size() < count) bytes = some_bytes(count);
  return bytes.data();
}

struct Shape {
  size_t rows, columns;
};

/// Over so many copies of the weights that they come from memory and not from a cache.
void run_product(benchmark::State& state, Format format, Shape shape, size_t tokens) {
  constexpr size_t kMemory = size_t{400} << 20;
  PackedMatrix w{format, shape.rows, shape.columns, nullptr};
  const size_t bytes = w.bytes(), copies = std::max<size_t>(1, kMemory / bytes);
  const std::byte* weights = weight_bytes(bytes * copies);
  const std::vector<float> x(tokens * shape.columns, 0.5f);
  std::vector<float> out(tokens * shape.rows);
  ThreadPool pool(physical_cores());
  MatmulScratch scratch(tokens, shape.columns);
  size_t copy = 0;
  for (auto _ : state) {
    w.data = weights + bytes * (copy++ % copies);
    const Product product{&w, out.data()};
    matmul({&product, 1}, x.data(), tokens, scratch, pool);
    benchmark::DoNotOptimize(out.data());
  }
  set_rates(state, bytes, 2 * shape.rows * shape.columns * tokens);
}

struct Context {
  size_t depth, queries, page_tokens;  // the queries are the last of the depth; 0: in one piece
  size_t heads = 32, kv_heads = 8;     // of 64
};

/// One layer's attention.
void run_attention(benchmark::State& state, Format format, Context context) {
  const auto& [depth, queries, asked_page, heads, kv_heads] = context;
  const AttentionShape shape{heads, kv_heads, 64, 0.125f};
  const size_t row = kv_row_bytes(format, shape.head_dim), page = asked_page == 0 ? depth : asked_page;
  const std::vector<std::byte> k = some_bytes(depth * shape.kv_heads * row), v = k;
  std::vector<TokenSpan> spans;
  for (size_t token = 0; token < depth; token += page) {
    // A page holds its tokens' rows of one head after the other.
    const size_t offset = token * shape.kv_heads * row;
    spans.push_back({.k_format = format,
                     .v_format = format,
                     .k = k.data() + offset,
                     .v = v.data() + offset,
                     .k_token_stride = row,
                     .k_head_stride = row * page,
                     .v_token_stride = row,
                     .v_head_stride = row * page,
                     .count = std::min(page, depth - token),
                     .first_position = static_cast<int64_t>(token)});
  }
  const std::vector<float> q(queries * shape.heads * shape.head_dim, 0.1f);
  std::vector<float> out(q.size());
  std::vector<int64_t> positions(queries);
  std::iota(positions.begin(), positions.end(), static_cast<int64_t>(depth - queries));
  ThreadPool pool(physical_cores());
  AttentionScratch scratch(shape, pool.threads(), depth);
  const AttentionQueries all{q.data(), out.data(), positions, spans};
  for (auto _ : state) {
    attend({&all, 1}, shape, scratch, pool);
    benchmark::DoNotOptimize(out.data());
  }
  // Of many queries each 16 read the context once, mostly from a cache: then it is the operations that tell.
  const size_t pairs = queries * depth - queries * (queries - 1) / 2;
  set_rates(state, 2 * depth * shape.kv_heads * row, 4 * pairs * shape.heads * shape.head_dim);
}

void run_read_bandwidth(benchmark::State& state) {
  constexpr size_t kBytes = size_t{1} << 30;
  const std::span memory(weight_bytes(kBytes), kBytes);
  ThreadPool pool(physical_cores());
  double best = 0;
  for (auto _ : state) best = std::max(best, read_bandwidth(memory, pool));
  state.counters["bytes_per_second"] = best;  // of its own measure: the best pass
}

void run_multiply_add_peak(benchmark::State& state) {
  ThreadPool pool(physical_cores());
  double best = 0;
  for (auto _ : state) best = std::max(best, multiply_add_peak(pool));
  state.counters["operations"] = best;
}

template <class... Arguments>
void add(const std::string& name, Arguments... arguments) {
  benchmark::RegisterBenchmark(name.c_str(), arguments...)->UseRealTime()->Unit(benchmark::kMicrosecond);
}

const bool registered = [] {
  benchmark::RegisterBenchmark("machine/read", run_read_bandwidth)->Iterations(2);
  benchmark::RegisterBenchmark("machine/multiply-add", run_multiply_add_peak)->Iterations(1);
  for (const Format format : {Format::q4_0, Format::q8_0, Format::q4_k, Format::q6_k, Format::f16}) {
    // Queries and outputs, the feed-forward's first and last product; logits are only taken of a text's last token.
    for (const Shape shape : {Shape{2048, 2048}, Shape{8192, 2048}, Shape{2048, 8192}, Shape{128256, 2048}}) {
      for (const size_t tokens : {1, 8, 512}) {
        if (shape.rows == 128256 && tokens > 8) continue;
        add(fmt::format("product/{}/{}x{}/{}", name(format), shape.rows, shape.columns, tokens), run_product, format,
            shape, tokens);
      }
    }
  }
  for (const Format format : {Format::f32, Format::f16, Format::q8_0, Format::q4_0, Format::fp8_e4m3}) {
    for (const Context context :
         {Context{1024, 1, 0}, Context{4096, 1, 0}, Context{4096, 1, 32}, Context{16384, 1, 0}, Context{65536, 1, 0},
          Context{512, 512, 0}, Context{4096, 512, 0}, Context{16384, 1, 0, 12, 12}, Context{16384, 1, 32, 12, 12}}) {
      add(fmt::format("attention/{}/{}x{}/{}/{}{}", name(format), context.heads, context.kv_heads, context.depth,
                      context.queries, context.page_tokens ? "/paged" : ""),
          run_attention, format, context);
    }
  }
  return true;
}();

}  // namespace
}  // namespace contexture
