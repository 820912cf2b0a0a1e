#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <map>

#include "cache/layout.h"
#include "cache/saved_context.h"
#include "kernels/attention.h"
#include "support/random.h"
#include "support/sanitized.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

constexpr size_t kDim = 8, kLayers = 2, kSinkCount = 3;
using Tokens = std::vector<int32_t>;

/// K or V of a token: a small multiple of 1/16, which every format here holds exactly, and which says what it is and
/// where it stands.
float mark(int32_t token, uint64_t key, size_t position, size_t layer, size_t channel, bool is_v) {
  const size_t what = (static_cast<size_t>(token) * 11 + key * 7 + position * 3) % 31;
  return static_cast<float>(what) + static_cast<float>(layer) / 2 + static_cast<float>(channel) / 16 + (is_v ? 32 : 0);
}

/// A cache beside a trivial model of one: a list of tokens for each sequence. Rows that belong to no token hold
/// signalling NaN.
class Pair {
 public:
  explicit Pair(const CachePlan& plan)
      : plan_(plan),
        layout_(layout_of(plan)),
        cache_(make_cache(plan)),
        attention_(kShape, 1),
        pool_(1),
        random_(fresh_random()) {
    fill_with_garbage();
  }

  void run(size_t operations) {
    for (size_t operation = 0; operation < operations; ++operation) {
      SCOPED_TRACE(operation);
      step();
      if (operation % 64 == 0) {
        for (const auto& [id, tokens] : model_) expect_held(id, tokens);
      }
      if (testing::Test::HasFatalFailure()) return;
    }
    while (!model_.empty()) free(model_.begin());
  }

  size_t adopted() const { return adopted_; }
  size_t full() const { return full_; }
  size_t swapped() const { return swapped_; }

  /// As many tokens as the plan has room for, in one sequence: no page has been lost.
  bool has_all_its_room() {
    const SequenceId id = cache_->create().value();
    while (cache_->length(id) < plan_.context) {
      if (!cache_->append(id, std::min<size_t>(8, plan_.context - cache_->length(id)))) return false;
    }
    cache_->free(id);
    return true;
  }

 private:
  using Entry = std::map<SequenceId, Tokens>::iterator;
  static constexpr AttentionShape kShape{.heads = 1, .kv_heads = 1, .head_dim = kDim, .scale = 0.02f};

  size_t below(size_t n) { return random_() % n; }
  Entry some() { return std::next(model_.begin(), static_cast<ptrdiff_t>(below(model_.size()))); }
  bool has_pool() const { return !layout_.pool_option.empty(); }

  void step() {
    if (model_.empty()) return create();
    switch (below(12)) {
      case 0:
        return create();
      case 1:
        return fork(some());
      case 2:
        return below(12) == 0 ? free(some()) : append(some());  // seldom, so that some grow up
      case 3:
        return below(2) == 0 ? truncate(some()) : append(some());
      case 4:
        return swap(some());
      case 5:
      case 6:
        return remember(some());
      default:
        return append(some());
    }
  }

  /// Tokens of a language of two words, so that prompts meet; a long beginning is always the same.
  Tokens prompt() {
    Tokens tokens(below(60));
    for (size_t i = 0; i < tokens.size(); ++i) tokens[i] = i < 20 ? 1 : static_cast<int32_t>(below(2));
    return tokens;
  }

  void create() {
    const uint64_t key = below(2);
    const auto id = cache_->create(key);
    ASSERT_EQ(id.has_value(), model_.size() < plan_.sequences);
    if (!id) return;
    keys_[*id] = key;
    const Tokens tokens = prompt();
    const size_t adopted = cache_->adopt(*id, tokens);
    ASSERT_LE(adopted, tokens.size());
    adopted_ += adopted;
    ASSERT_TRUE(model_.emplace(*id, Tokens(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(adopted))).second);
    ASSERT_EQ(cache_->remembered(*id), adopted);
    const auto next = cache_->next_held(std::span(tokens).first(adopted), key);
    ASSERT_TRUE(!next || *next == 0 || *next == 1);
    expect_held(*id, model_[*id]);
  }

  void fork(Entry from) {
    const auto id = cache_->fork(from->first);
    ASSERT_EQ(id.has_value(), model_.size() < plan_.sequences);
    if (!id) return;
    keys_[*id] = keys_[from->first];
    ASSERT_TRUE(model_.emplace(*id, from->second).second);
    expect_held(*id, from->second);
  }

  void free(Entry entry) {
    if (below(4) == 0) cache_->forget(entry->first);
    cache_->free(entry->first);
    model_.erase(entry);
  }

  void truncate(Entry entry) {
    auto& [id, tokens] = *entry;
    const size_t length = tokens.size() - below(std::min<size_t>(tokens.size(), 40) + 1);
    const size_t left = cache_->truncate(id, length);
    ASSERT_TRUE(left == length || (!layout_.truncates_anywhere && left <= kSinkCount));
    ASSERT_EQ(cache_->length(id), left);
    tokens.resize(left);
    expect_held(id, tokens);
  }

  void swap(Entry entry) {
    const Tokens tokens = entry->second;
    const uint64_t key = keys_[entry->first];
    const SwappedContext swapped = swap_out(*cache_, entry->first);
    free(entry);
    const SequenceId id = cache_->create(key).value();
    keys_[id] = key;
    if (!swap_in(*cache_, id, swapped)) {  // what was shared takes pages of its own now
      ASSERT_TRUE(has_pool());
      ASSERT_EQ(cache_->length(id), 0u) << "full changes nothing";
      return cache_->free(id);
    }
    ++swapped_;
    model_[id] = tokens;
    spoil_rows_behind(id);
    expect_held(id, tokens);
  }

  void remember(Entry entry) {
    const auto& [id, tokens] = *entry;
    if (!layout_.shares_prefixes) return cache_->remember(id, tokens);
    const size_t told = cache_->remembered(id);
    ASSERT_LE(told, tokens.size());
    cache_->remember(id, std::span(tokens).subspan(told, below(tokens.size() - told + 1)));
    expect_held(id, tokens);
  }

  void append(Entry entry) {
    auto& [id, tokens] = *entry;
    const size_t count = below(12), free_tokens = cache_->free_tokens();
    const bool fits = cache_->append(id, count);
    ASSERT_TRUE(fits || tokens.size() + count > plan_.context || free_tokens < count + 2 * unit_of(plan_));
    if (!fits) {
      ++full_;
      ASSERT_TRUE(has_pool() || tokens.size() + count > plan_.context);
      ASSERT_EQ(cache_->length(id), tokens.size()) << "full changes nothing";
      return expect_held(id, tokens);
    }
    for (size_t i = 0; i < count; ++i) {
      tokens.push_back(tokens.size() < 20 ? 1 : static_cast<int32_t>(below(2)));
      store(cache_->slot(id, tokens.size() - 1), tokens.back(), keys_.at(id), tokens.size() - 1);
    }
    if (count > 0) spoil_rows_behind(id);
    expect_held(id, tokens);
  }

  void store(Slot slot, int32_t token, uint64_t key, size_t position) {
    float k[kDim], v[kDim];
    for (size_t layer = 0; layer < kLayers; ++layer) {
      for (size_t c = 0; c < kDim; ++c) {
        k[c] = mark(token, key, position, layer, c, false);
        v[c] = mark(token, key, position, layer, c, true);
      }
      cache_->store(layer, {&slot, 1}, k, v);
    }
  }

  void spoil(Slot slot) {
    std::vector<float> garbage(kDim, std::bit_cast<float>(0x7FA00000u));
    for (size_t layer = 0; layer < kLayers; ++layer) cache_->store(layer, {&slot, 1}, garbage.data(), garbage.data());
  }

  /// The rows after the last token that was just written, in the page that it alone has.
  void spoil_rows_behind(SequenceId id) {
    if (!layout_.truncates_anywhere || cache_->length(id) == 0)
      return;  // in a ring, what is behind is what came before
    const auto page = static_cast<Slot>(has_pool() ? unit_of(plan_) : plan_.context);
    Slot slot = cache_->slot(id, cache_->length(id) - 1);
    for (Slot left = 16; left > 0 && (slot + 1) % page != 0; --left) spoil(++slot);
  }

  void fill_with_garbage() {
    std::vector<SequenceId> all;
    while (const auto id = cache_->create()) {
      all.push_back(*id);
      for (size_t i = 0; i < plan_.context && cache_->append(*id, 1); ++i) spoil(cache_->slot(*id, i));
    }
    for (const SequenceId id : all) cache_->free(id);
  }

  /// What attention makes of the sequence's view is what it makes of the list of tokens; so it is with every row.
  void expect_held(SequenceId id, const Tokens& tokens) {
    ASSERT_EQ(cache_->length(id), tokens.size());
    if (tokens.empty()) return;
    const auto query = static_cast<int64_t>(tokens.size()) - 1;
    const size_t layer = below(kLayers);
    std::vector<TokenSpan> spans;
    cache_->view(id, spans);
    ASSERT_LE(spans.size(), spans_of(plan_));
    size_t at = 0;
    for (const TokenSpan& span : CacheView(spans, layer)) {
      if (!span.seen_from(query)) continue;
      for (size_t t = 0; t < span.count; ++t, ++at) {
        ASSERT_EQ(span.position(t), static_cast<int64_t>(at));
        ASSERT_LT(at, tokens.size());
        float k[kDim], v[kDim];
        decode_kv_row(span.k_format, span.k_row(t, 0), k, kDim);
        decode_kv_row(span.v_format, span.v_row(t, 0), v, kDim);
        for (size_t c = 0; c < kDim; ++c) {
          ASSERT_EQ(k[c], mark(tokens[at], keys_.at(id), at, layer, c, false))
              << "token " << at << " of " << tokens.size();
          ASSERT_EQ(v[c], mark(tokens[at], keys_.at(id), at, layer, c, true))
              << "token " << at << " of " << tokens.size();
        }
      }
    }
    ASSERT_EQ(at, tokens.size());
    if (below(8) == 0) expect_attention(spans, tokens, keys_.at(id), layer);
  }

  void expect_attention(const std::vector<TokenSpan>& spans, const Tokens& tokens, uint64_t key, size_t layer) {
    std::vector<float> k, v;
    for (size_t t = 0; t < tokens.size(); ++t) {
      for (size_t c = 0; c < kDim; ++c) {
        k.push_back(mark(tokens[t], key, t, layer, c, false));
        v.push_back(mark(tokens[t], key, t, layer, c, true));
      }
    }
    constexpr size_t row = kDim * sizeof(float);
    const TokenSpan plain{.k_format = Format::f32,
                          .v_format = Format::f32,
                          .k = std::as_bytes(std::span(k)).data(),
                          .v = std::as_bytes(std::span(v)).data(),
                          .k_token_stride = row,
                          .k_head_stride = row,
                          .v_token_stride = row,
                          .v_head_stride = row,
                          .count = tokens.size()};
    const std::vector<float> q = random_floats(random_, kDim);
    const int64_t query = static_cast<int64_t>(tokens.size()) - 1;
    double expected[kDim];
    attend_plain(q.data(), query, {&plain, 1}, kShape, expected);
    float out[kDim];
    const AttentionQueries queries{
        .q = q.data(), .out = out, .positions = {&query, 1}, .view = CacheView(spans, layer)};
    attend({&queries, 1}, kShape, attention_, pool_);
    // float32 over at most 600 tokens of values below 64.
    for (size_t c = 0; c < kDim; ++c) ASSERT_NEAR(out[c], expected[c], 2e-3);
  }

  const CachePlan plan_;
  const CacheLayout& layout_;
  std::unique_ptr<Cache> cache_;
  std::map<SequenceId, Tokens> model_;
  std::map<SequenceId, uint64_t> keys_;
  AttentionScratch attention_;
  ThreadPool pool_;
  std::mt19937 random_;
  size_t adopted_ = 0, full_ = 0, swapped_ = 0;
};

CachePlan plan_of(std::string_view layout, size_t page_tokens = 8) {
  CachePlan plan{
      .layout = std::string(layout),
      .shape = {.layers = kLayers, .kv_heads = 1, .head_dim = kDim, .k_format = Format::f32, .v_format = Format::f16},
      .sequences = 5,
      .context = layout_named(layout).truncates_anywhere ? size_t{120} : size_t{600},
      .step_tokens = 12,
      .options = own_options(layout, {{"page_tokens", page_tokens},
                                      {"hot_tokens", 20},
                                      {"sink_tokens", kSinkCount},
                                      {"cold_k_format", Format::f16},
                                      {"cold_v_format", Format::f32}})};
  set_pool(plan, 256);
  return plan;
}

/// Every layout in the list; of those that hold tokens together, two sizes.
std::vector<CachePlan> plans() {
  std::vector<CachePlan> all;
  for (const std::string_view layout : cache_layouts()) {
    all.push_back(plan_of(layout));
    if (unit_of(all.back()) > 1) all.push_back(plan_of(layout, 32));
  }
  return all;
}

class RandomOperations : public testing::TestWithParam<CachePlan> {};

TEST_P(RandomOperations, BehaveAsOnListsOfTokens) {
  Pair pair(GetParam());
  pair.run(kSanitized ? 20'000 : 50'000);  // enough that some caches run full
  EXPECT_GT(pair.full(), 0u);
  EXPECT_GT(pair.swapped(), 0u);
  EXPECT_EQ(pair.adopted() > 0, layout_of(GetParam()).shares_prefixes);
  EXPECT_TRUE(pair.has_all_its_room());
}

INSTANTIATE_TEST_SUITE_P(Layouts, RandomOperations, testing::ValuesIn(plans()),
                         [](const auto& plan) { return plan.param.layout + std::to_string(unit_of(plan.param)); });

}  // namespace
}  // namespace contexture
