#include "backends/ring/rates.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

using Clock = std::chrono::steady_clock;

/// The least of some rounds: the first ones touch memory and wake threads, others are disturbed.
template <class Round>
double least_seconds(Communicator& ranks, const Round& round) {
  double least = 1e9;
  for (int i = 0; i < 3; ++i) {
    ranks.barrier();  // all at once, as in a step
    const auto begin = Clock::now();
    round();
    least = std::min(least, std::chrono::duration<double>(Clock::now() - begin).count());
  }
  return std::max(least, 1e-9);
}

}  // namespace

RingRates measure_rates(Communicator& ranks, const AttentionShape& shape, Format k, Format v, ThreadPool& pool) {
  constexpr size_t kQueries = 32, kTokens = 512, kMessage = size_t{1} << 20;
  const size_t k_row = kv_row_bytes(k, shape.head_dim), v_row = kv_row_bytes(v, shape.head_dim);
  // Zeros in every format: what attention takes does not depend on the numbers.
  const std::vector<std::byte> keys(kTokens * shape.kv_heads * k_row), values(kTokens * shape.kv_heads * v_row);
  const TokenSpan span{.k_format = k,
                       .v_format = v,
                       .k = keys.data(),
                       .v = values.data(),
                       .k_token_stride = k_row,
                       .k_head_stride = kTokens * k_row,
                       .v_token_stride = v_row,
                       .v_head_stride = kTokens * v_row,
                       .count = kTokens};
  std::vector<float> q(kQueries * shape.heads * shape.head_dim), out(q.size());
  std::vector<int64_t> positions(kQueries);
  std::iota(positions.begin(), positions.end(), static_cast<int64_t>(kTokens));  // they see all
  AttentionScratch scratch(shape, pool.threads());
  const AttentionQueries queries{.q = q.data(), .out = out.data(), .positions = positions, .view = {&span, 1}};
  const double operations = 4.0 * static_cast<double>(kQueries * kTokens * shape.heads * shape.head_dim);
  const std::vector<std::byte> sent(kMessage);
  std::vector<std::byte> received(kMessage);
  RingRates mine;
  mine.flops = operations / least_seconds(ranks, [&] { attend({&queries, 1}, shape, scratch, pool); });
  mine.bandwidth = static_cast<double>(kMessage) / least_seconds(ranks, [&] {
                     ranks.start_exchange(sent, received);
                     ranks.finish_exchange();
                   });
  RingRates slowest = mine;
  for (const std::vector<std::byte>& told : ranks.all_gather(std::as_bytes(std::span(&mine, 1)))) {
    RingRates theirs;
    if (told.size() != sizeof(theirs)) fail("the ranks do not agree on rates; start all with the same program");
    std::memcpy(&theirs, told.data(), sizeof(theirs));
    slowest.flops = std::min(slowest.flops, theirs.flops);
    slowest.bandwidth = std::min(slowest.bandwidth, theirs.bandwidth);
  }
  return slowest;
}

}  // namespace contexture
