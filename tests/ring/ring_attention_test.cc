// Ring attention over threads against a plain float64 softmax over the whole context.

#include "backends/ring/ring_attention.h"

#include <gtest/gtest.h>

#include <barrier>
#include <cmath>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>

#include "backends/ring/local_communicator.h"
#include "backends/ring/sharded_cache.h"
#include "cache/layout.h"
#include "support/allocations.h"
#include "support/random.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

struct Case {
  int ranks = 2;
  AttentionShape shape;
  Format k_format = Format::f32, v_format = Format::f32;
  std::string layout = "paged";
  std::vector<std::vector<size_t>> turns;  // (turns, sequences): new tokens
  Dealing dealing = Dealing::balanced;
};

AttentionShape ring_shape(size_t heads, size_t kv_heads, size_t head_dim, int64_t window = 0, float softcap = 0) {
  return {.heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .scale = 1 / std::sqrt(static_cast<float>(head_dim)),
          .softcap = softcap,
          .window = window};
}

CachePlan plan_for(const Case& c, size_t context) {
  CachePlan plan;
  plan.layout = c.layout;
  plan.shape = {.layers = 1,
                .kv_heads = c.shape.kv_heads,
                .head_dim = c.shape.head_dim,
                .k_format = c.k_format,
                .v_format = c.v_format};
  plan.sequences = c.turns[0].size();
  plan.context = context;
  plan.rotate = false;
  plan.options = own_options(c.layout, {{"page_tokens", 16},
                                        {"hot_tokens", 40},
                                        {"cold_k_format", c.k_format},  // so that what is cold is not less exact
                                        {"cold_v_format", c.v_format}});
  return plan;
}

/// Q, K and V of all turns; what attention makes of them by the engine's cache on one machine and by float64.
struct Truth {
  struct Turn {
    std::vector<std::vector<float>> q, k, v, one_machine;  // (sequences), each (tokens, …)
  };

  Truth(const Case& c, std::mt19937& random) : totals(c.turns[0].size()) {
    for (const auto& turn : c.turns) {
      Turn& t = turns.emplace_back();
      for (size_t s = 0; s < turn.size(); ++s) {
        const size_t kv = turn[s] * c.shape.kv_heads * c.shape.head_dim;
        t.q.push_back(random_floats(random, turn[s] * c.shape.heads * c.shape.head_dim));
        t.k.push_back(random_floats(random, kv));
        t.v.push_back(random_floats(random, kv));
        totals[s] += turn[s];
      }
    }
    context = std::max<size_t>(1, *std::max_element(totals.begin(), totals.end()));
    CachePlan plan = plan_for(c, context);
    plan.layout = "contiguous";
    plan.options = {};
    cache = make_cache(plan);
    for (size_t s = 0; s < totals.size(); ++s) ids.push_back(*cache->create());
    ThreadPool pool(1);
    AttentionScratch scratch(c.shape, 1, context);
    for (Turn& turn : turns) {
      for (size_t s = 0; s < totals.size(); ++s) {
        const size_t tokens = turn.q[s].size() / (c.shape.heads * c.shape.head_dim), first = cache->length(ids[s]);
        EXPECT_TRUE(cache->append(ids[s], tokens));
        std::vector<Slot> slots;
        std::vector<int64_t> positions;
        for (size_t t = 0; t < tokens; ++t) {
          slots.push_back(cache->slot(ids[s], first + t));
          positions.push_back(static_cast<int64_t>(first + t));
        }
        cache->store(0, slots, turn.k[s].data(), turn.v[s].data());
        std::vector<TokenSpan> spans;
        cache->view(ids[s], spans);
        turn.one_machine.emplace_back(turn.q[s].size(), NAN);
        if (tokens == 0) continue;
        const AttentionQueries queries{
            .q = turn.q[s].data(), .out = turn.one_machine.back().data(), .positions = positions, .view = spans};
        contexture::attend({&queries, 1}, c.shape, scratch, pool);
      }
    }
  }

  /// Float64 over everything that the sequence holds in the end; later tokens are not seen.
  std::vector<double> oracle(const Case& c, size_t turn, size_t sequence, size_t token, int64_t position) const {
    std::vector<TokenSpan> spans;
    cache->view(ids[sequence], spans);
    std::vector<double> out(c.shape.heads * c.shape.head_dim);
    attend_plain(turns[turn].q[sequence].data() + token * out.size(), position, spans, c.shape, out.data());
    return out;
  }

  std::vector<Turn> turns;
  std::vector<size_t> totals;
  size_t context = 0;
  std::unique_ptr<Cache> cache;
  std::vector<SequenceId> ids;
};

/// Outputs of one rank: of each of its tokens, in order.
struct RankOutputs {
  struct Row {
    size_t turn, sequence;
    int64_t position;
    std::vector<float> out;
  };
  std::vector<Row> rows;
};

/// The bytes that a rank sends, from who owns which tokens and nothing else (docs/context_parallel.md).
struct Formulas {
  Formulas(const Case& c, const ShardedCache& cache, std::span<const SequenceId> ids, size_t turn)
      : shape(c.shape),
        kv_row(kv_row_bytes(c.k_format, c.shape.head_dim) + kv_row_bytes(c.v_format, c.shape.head_dim)),
        held(static_cast<size_t>(c.ranks)),
        fresh(held.size()) {
    for (size_t s = 0; s < ids.size(); ++s) {
      const Ownership& ownership = cache.ownership(ids[s]);
      for (size_t p = 0; p < ownership.length(); ++p) {
        const size_t owner = static_cast<size_t>(ownership.owner(static_cast<int64_t>(p)));
        ++held[owner];
        fresh[owner] += p + c.turns[turn][s] >= ownership.length();
      }
    }
  }

  /// Everything but what the next rank has itself.
  uint64_t passed(RingPass pass, int rank) const {
    const size_t n = held.size(), next = (static_cast<size_t>(rank) + 1) % n;
    uint64_t bytes = 0;
    for (size_t r = 0; r < n; ++r) {
      if (r == next) continue;
      bytes += pass == RingPass::kv ? held[r] * shape.kv_heads * kv_row : fresh[r] * shape.heads * shape.head_dim * 4;
    }
    return bytes;
  }
  /// Values, maximum and sum for every query of the others.
  uint64_t returned(int rank) const {
    uint64_t queries = 0;
    for (size_t r = 0; r < fresh.size(); ++r) queries += static_cast<int>(r) == rank ? 0 : fresh[r];
    return queries * shape.heads * (shape.head_dim + 2) * 4;
  }

  AttentionShape shape;
  size_t kv_row;
  std::vector<uint64_t> held, fresh;  // (ranks): tokens
};

/// Runs all turns on all ranks; rows of all of them.
std::vector<RankOutputs> run_ring(const Case& c, const Truth& truth, RingPass pass, int threads = 1) {
  std::vector<RankOutputs> outputs(static_cast<size_t>(c.ranks));
  run_local_ranks(c.ranks, [&](Communicator& ranks) {
    const size_t n = static_cast<size_t>(c.ranks), row = c.shape.heads * c.shape.head_dim;
    const size_t kv_row = c.shape.kv_heads * c.shape.head_dim;
    ShardedCache cache(plan_for(c, truth.context), ranks.rank(), c.ranks, c.dealing);
    const size_t most = most_in_step(std::accumulate(truth.totals.begin(), truth.totals.end(), size_t{0}),
                                     truth.totals.size(), n, c.dealing);
    const size_t shard = bytes_of(ShardedCache::share_of(plan_for(c, truth.context), n, c.dealing));
    RingAttention ring(
        ranks,
        {.ranks = n, .step_tokens = most, .shard_bytes = shard, .heads = c.shape.heads, .head_dim = c.shape.head_dim});
    ThreadPool pool(threads);
    AttentionScratch scratch(c.shape, threads, truth.context);
    std::vector<SequenceId> ids;
    for (size_t s = 0; s < truth.totals.size(); ++s) ids.push_back(*cache.create());
    for (size_t turn = 0; turn < truth.turns.size(); ++turn) {
      const Truth::Turn& t = truth.turns[turn];
      std::vector<float> q;
      std::vector<std::vector<int64_t>> positions(ids.size());
      std::vector<std::vector<TokenSpan>> spans(ids.size());
      std::vector<RingSequence> sequences;
      for (size_t s = 0; s < ids.size(); ++s) {
        const size_t tokens = t.q[s].size() / row, first = cache.length(ids[s]);
        ASSERT_TRUE(cache.append(ids[s], tokens));
        for (size_t i = 0; i < tokens; ++i) {
          const int64_t position = static_cast<int64_t>(first + i);
          if (cache.ownership(ids[s]).owner(position) != ranks.rank()) continue;
          positions[s].push_back(position);
          const Slot slot = cache.slot(ids[s], first + i);
          cache.store(0, {&slot, 1}, t.k[s].data() + i * kv_row, t.v[s].data() + i * kv_row);
          q.insert(q.end(), t.q[s].begin() + static_cast<ptrdiff_t>(i * row),
                   t.q[s].begin() + static_cast<ptrdiff_t>((i + 1) * row));
        }
        cache.view(ids[s], spans[s]);
      }
      for (size_t s = 0; s < ids.size(); ++s) sequences.push_back({positions[s], spans[s]});
      ring.begin(sequences, c.shape);
      std::vector<float> out(q.size(), NAN);
      const RingTraffic before = ranks.traffic();
      ring.attend(pass, c.shape, sequences, q.data(), out.data(), scratch, pool);
      const RingAttention::Bytes bytes = ring.bytes_of(pass, c.shape);
      EXPECT_EQ(ranks.traffic().ring_bytes - before.ring_bytes, bytes.ring);
      EXPECT_EQ(ranks.traffic().all_to_all_bytes - before.all_to_all_bytes, bytes.all_to_all);
      const Formulas formulas(c, cache, ids, turn);
      EXPECT_EQ(bytes.all_to_all, pass == RingPass::kv ? 0 : formulas.returned(ranks.rank()));
      if (pass == RingPass::q || c.layout != "mixed") {  // which has some tokens twice, hot and cold
        EXPECT_EQ(bytes.ring, formulas.passed(pass, ranks.rank()));
      }
      const float* at = out.data();
      for (size_t s = 0; s < ids.size(); ++s) {
        for (const int64_t position : positions[s]) {
          outputs[static_cast<size_t>(ranks.rank())].rows.push_back({turn, s, position, {at, at + row}});
          at += row;
        }
      }
    }
  });
  return outputs;
}

/// Both ways: equal to each other bit for bit, and to float64 within 1e-5 of the largest value; `checked` rows of every
/// turn and sequence against float64, all of them against one machine.
void check(const Case& c, std::mt19937& random, size_t checked = 40) {
  const Truth truth(c, random);
  const std::vector<RankOutputs> kv = run_ring(c, truth, RingPass::kv), q = run_ring(c, truth, RingPass::q, 2);
  std::vector<std::vector<size_t>> first(truth.turns.size(), std::vector<size_t>(truth.totals.size()));
  for (size_t s = 0; s < truth.totals.size(); ++s) {
    for (size_t turn = 1; turn < truth.turns.size(); ++turn) first[turn][s] = first[turn - 1][s] + c.turns[turn - 1][s];
  }
  size_t rows = 0;
  for (size_t r = 0; r < kv.size(); ++r) {
    ASSERT_EQ(kv[r].rows.size(), q[r].rows.size());
    for (size_t i = 0; i < kv[r].rows.size(); ++i, ++rows) {
      const auto& [turn, sequence, position, out] = kv[r].rows[i];
      ASSERT_EQ(std::memcmp(out.data(), q[r].rows[i].out.data(), out.size() * sizeof(float)), 0)
          << "rank " << r << ", position " << position;
      const size_t token = static_cast<size_t>(position) - first[turn][sequence];
      const float* one = truth.turns[turn].one_machine[sequence].data() + token * out.size();
      // Values are about 1; f32 sums of up to 4,097 of them, merged at most eight times.
      for (size_t d = 0; d < out.size(); ++d) ASSERT_NEAR(out[d], one[d], 1e-5) << "position " << position;
      if (random() % std::max<size_t>(1, c.turns[turn][sequence] / checked) != 0) continue;
      const std::vector<double> expected = truth.oracle(c, turn, sequence, token, position);
      for (size_t d = 0; d < out.size(); ++d) {
        ASSERT_NEAR(out[d], expected[d], 1e-5) << c.ranks << " ranks, turn " << turn << ", position " << position;
      }
    }
  }
  size_t expected_rows = 0;
  for (const auto& turn : c.turns) expected_rows += std::accumulate(turn.begin(), turn.end(), size_t{0});
  EXPECT_EQ(rows, expected_rows);
}

class RingOf : public testing::TestWithParam<int> {};

TEST_P(RingOf, EveryLengthIsExact) {
  std::mt19937 random = fresh_random();
  const size_t n = static_cast<size_t>(GetParam());
  for (const size_t length :
       {size_t{0}, size_t{1}, size_t{2}, 2 * n - 1, 2 * n, 2 * n + 1, size_t{1000}, size_t{4097}}) {
    const AttentionShape shape = length < 1000 ? ring_shape(4, 2, 16) : ring_shape(2, 1, 8);
    check({.ranks = GetParam(), .shape = shape, .turns = {{length}}}, random, 10);
    if (HasFatalFailure()) return;
  }
}

TEST_P(RingOf, TurnsOfManySequencesAreExact) {
  std::mt19937 random = fresh_random();
  // Prefill, decode, prefill, decode …: lanes with nothing, one token, many.
  const std::vector<std::vector<size_t>> turns = {{33, 0, 150, 1}, {1, 1, 1, 1},  {1, 1, 1, 1},
                                                  {1, 0, 1, 1},    {70, 5, 0, 2}, {1, 1, 1, 1},
                                                  {0, 200, 3, 17}, {1, 1, 1, 1},  {1, 1, 1, 1}};
  for (const auto& [heads, kv_heads] : {std::pair<size_t, size_t>{4, 4}, {6, 2}, {8, 1}}) {
    for (const Dealing dealing : {Dealing::balanced, Dealing::by_position}) {
      check({.ranks = GetParam(), .shape = ring_shape(heads, kv_heads, 24), .turns = turns, .dealing = dealing},
            random);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(RingOf, EveryFormatTravelsAsStored) {
  std::mt19937 random = fresh_random();
  for (const Format k : kv_formats()) {
    for (const Format v : {Format::f16, Format::q4_0}) {
      check({.ranks = GetParam(),
             .shape = ring_shape(4, 2, 40),
             .k_format = k,
             .v_format = v,
             .turns = {{90, 7}, {1, 1}, {20, 45}}},
            random);
      if (HasFatalFailure()) return;
    }
  }
}

TEST_P(RingOf, WindowsSoftCapsAndLayouts) {
  std::mt19937 random = fresh_random();
  for (const std::string layout : {"contiguous", "paged", "mixed"}) {
    for (const Dealing dealing : {Dealing::balanced, Dealing::by_position}) {
      check({.ranks = GetParam(),
             .shape = ring_shape(4, 2, 16, 50, 20),
             .layout = layout,
             .turns = {{300, 3}, {1, 1}, {1, 1}, {150, 90}, {1, 1}},
             .dealing = dealing},
            random);
      if (HasFatalFailure()) return;
    }
  }
}

/// What attention makes of each position of a sequence.
std::vector<std::vector<float>> by_position(const std::vector<RankOutputs>& outputs, size_t sequence, size_t tokens) {
  std::vector<std::vector<float>> rows(tokens);
  for (const RankOutputs& rank : outputs) {
    for (const auto& row : rank.rows) {
      if (row.sequence == sequence) rows.at(static_cast<size_t>(row.position)) = row.out;
    }
  }
  return rows;
}

TEST_P(RingOf, DealtByPositionBitsDependOnNeitherChunksNorCompany) {
  std::mt19937 random = fresh_random();
  constexpr size_t kTokens = 700;
  const Case alone{
      .ranks = GetParam(), .shape = ring_shape(4, 2, 16), .turns = {{kTokens}}, .dealing = Dealing::by_position};
  const Truth whole(alone, random);
  const auto want = by_position(run_ring(alone, whole, RingPass::kv), 0, kTokens);
  for (int round = 0; round < 4; ++round) {
    // The same sequence in pieces, beside others of any length.
    Case crowd = alone;
    crowd.turns.clear();
    for (size_t left = kTokens; left > 0;) {
      const size_t piece = std::min(left, random() % 3 ? 1 + random() % 200 : size_t{1});
      crowd.turns.push_back({random() % 90, piece, random() % 3});
      left -= piece;
    }
    Truth truth(crowd, random);
    size_t done = 0;
    for (size_t turn = 0; turn < crowd.turns.size(); done += crowd.turns[turn++][1]) {
      const auto take = [&](std::vector<float>& to, const std::vector<float>& from, size_t row) {
        std::copy_n(from.begin() + static_cast<ptrdiff_t>(done * row), to.size(), to.begin());
      };
      take(truth.turns[turn].q[1], whole.turns[0].q[0], 4 * 16);
      take(truth.turns[turn].k[1], whole.turns[0].k[0], 2 * 16);
      take(truth.turns[turn].v[1], whole.turns[0].v[0], 2 * 16);
    }
    const RingPass pass = round % 2 ? RingPass::kv : RingPass::q;
    EXPECT_EQ(by_position(run_ring(crowd, truth, pass, 2), 1, kTokens), want) << crowd.turns.size() << " pieces";
  }
}

INSTANTIATE_TEST_SUITE_P(Ranks, RingOf, testing::Values(1, 2, 3, 4, 8));

TEST(RingAttention, NothingBecomesNaN) {
  // A window of one token: all but one shard are masked whole; with more ranks than tokens most hold nothing.
  std::mt19937 random = fresh_random();
  check({.ranks = 8, .shape = ring_shape(2, 1, 8, 1), .turns = {{3}, {1}, {0}, {5}}}, random);
  check({.ranks = 8, .shape = ring_shape(2, 1, 8), .turns = {{1}, {1}}}, random);
}

// From a step's second layer on nothing is allocated, whatever travels.
TEST(RingAttention, ALayerAllocatesNothing) {
  if (!kWatchesAllocations) GTEST_SKIP() << "allocations cannot be watched in this build";
  const Case c{.ranks = 3, .shape = ring_shape(4, 2, 16), .turns = {{300, 1, 40}}};
  const CachePlan plan = plan_for(c, 300);
  std::barrier together(c.ranks);
  run_local_ranks(c.ranks, [&](Communicator& ranks) {
    ShardedCache cache(plan, ranks.rank(), c.ranks);
    RingAttention ring(ranks, {.ranks = 3,
                               .sequences = 3,
                               .step_tokens = 200,
                               .shard_bytes = bytes_of(ShardedCache::share_of(plan, 3)),
                               .heads = c.shape.heads,
                               .head_dim = c.shape.head_dim});
    std::vector<std::vector<int64_t>> positions(3);
    std::vector<std::vector<TokenSpan>> spans(3);
    std::vector<RingSequence> sequences;
    size_t tokens = 0;
    const auto view = [&](size_t s) { cache.view(static_cast<SequenceId>(s), spans[s]); };
    for (size_t s = 0; s < 3; ++s) {
      const SequenceId id = *cache.create();
      ASSERT_EQ(id, static_cast<SequenceId>(s));
      ASSERT_TRUE(cache.append(id, c.turns[0][s]));
      for (size_t p = 0; p < c.turns[0][s]; ++p) {
        const int64_t position = static_cast<int64_t>(p);
        if (cache.ownership(id).owner(position) != ranks.rank()) continue;
        const Slot slot = cache.slot(id, p);
        const std::vector<float> row(c.shape.kv_heads * c.shape.head_dim, 0.5f);
        cache.store(0, {&slot, 1}, row.data(), row.data());
        positions[s].push_back(position);
      }
      tokens += positions[s].size();
      view(s);
      sequences.push_back({positions[s], spans[s]});
    }
    ring.begin(sequences, c.shape);
    const std::vector<float> q(tokens * c.shape.heads * c.shape.head_dim, 0.1f);
    std::vector<float> out(q.size());
    ThreadPool pool(1);
    AttentionScratch scratch(c.shape, 1, 300);
    for (const RingPass pass : {RingPass::kv, RingPass::q}) {
      together.arrive_and_wait();
      std::optional<AllocationWatch> watch;
      if (ranks.rank() == 0) watch.emplace();
      together.arrive_and_wait();
      for (size_t s = 0; s < 3; ++s) spans[s].clear(), view(s);
      ring.attend(pass, c.shape, sequences, q.data(), out.data(), scratch, pool);
      together.arrive_and_wait();
      EXPECT_EQ(watch ? watch->peak() : 0, 0u) << name(pass);
    }
  });
}

}  // namespace
}  // namespace contexture
