// Mixed: the first tokens (attention's sinks) and the last ones are hot, in the formats of the plan's shape; those
// between are cold, in formats of fewer bits. Every token is stored hot, in a ring that later tokens overwrite, and
// those that will ever be read cold are encoded beside it at once, from the same floats: nothing moves or is rounded
// twice when a token cools. Which copy a query reads is a function of its position alone, so that chunks, company,
// forks and resumed sessions change no bit.

#include <algorithm>
#include <cassert>

#include "base/error.h"
#include "cache/kv_memory.h"
#include "cache/layout.h"
#include "kernels/attention.h"

namespace contexture {
namespace {

/// Tokens cool in blocks of as many positions as attention's tiles have: a tile is then of one format.
constexpr int64_t kColdBlock = kTilePositions;

constexpr int64_t kMany = int64_t{1} << 40;
constexpr int64_t kHotTried[] = {100, 40, 256}, kSinksTried[] = {4, 0, 21};
constexpr LayoutOption kHotTokens{.name = "hot_tokens",
                                  .label = "hot",
                                  .help = "mixed cache: the last so many tokens are kept in --k- and --v-format",
                                  .standard = 256,
                                  .low = 1,
                                  .high = kMany,
                                  .tried = kHotTried,
                                  .decides_rows = true};
constexpr LayoutOption kSinkTokens{.name = "sink_tokens",
                                   .label = "sinks",
                                   .help = "mixed cache: and the first so many",
                                   .standard = 4,
                                   .high = kMany,
                                   .tried = kSinksTried,
                                   .decides_rows = true};
constexpr LayoutOption kColdKFormat{.name = "cold_k_format",
                                    .label = "cold K",
                                    .help = "mixed cache: format of K between them",
                                    .kind = LayoutOption::Kind::format,
                                    .standard = static_cast<int64_t>(Format::q4_0),
                                    .decides_rows = true};
constexpr LayoutOption kColdVFormat{.name = "cold_v_format",
                                    .label = "cold V",
                                    .help = "mixed cache: format of V between them",
                                    .kind = LayoutOption::Kind::format,
                                    .standard = static_cast<int64_t>(Format::q4_0),
                                    .decides_rows = true};
constexpr LayoutOption kMixedOptions[] = {kHotTokens, kSinkTokens, kColdKFormat, kColdVFormat};

KvFormatPair mixed_cold_formats(const CachePlan& plan) {
  return {plan.options.format(kColdKFormat), plan.options.format(kColdVFormat)};
}

/// The plan in numbers of tokens. Where what is saved may go on in a longer context, every token is held cold too.
struct Sizes {
  explicit Sizes(const CachePlan& plan)
      : context(static_cast<int64_t>(plan.context)),
        sinks(std::min(context, plan.options.number(kSinkTokens))),
        hot(plan.options.number(kHotTokens)) {
    if (plan.context > static_cast<size_t>(kMany)) {
      fail("a mixed cache of {} tokens; 2^40 are the most", plan.context);
    }
    const size_t step = plan.step_tokens > 0 ? std::min(plan.step_tokens, plan.context) : plan.context;
    blocks_of_step = static_cast<int64_t>(step) / kColdBlock + 2;
    ring = std::min(context - sinks, hot + kColdBlock + static_cast<int64_t>(step));
    cold = plan.resumable ? context - sinks : std::max<int64_t>(0, hot_from(context - 1) - sinks);
  }

  /// The first token after the sinks that a query at `position` reads hot.
  int64_t hot_from(int64_t position) const {
    const int64_t first = std::max<int64_t>(0, position + 1 - hot);
    return std::max(sinks, first / kColdBlock * kColdBlock);
  }
  /// The first query that reads a block of tokens that ends at `end`, a multiple of kColdBlock, cold.
  int64_t cold_from(int64_t end) const { return end + hot - 1; }

  int64_t context, sinks, hot, ring = 0, cold = 0, blocks_of_step = 0;
};

CacheShape cold_shape(const CachePlan& plan) {
  CacheShape shape = plan.shape;
  shape.k_format = mixed_cold_formats(plan).k;
  shape.v_format = mixed_cold_formats(plan).v;
  return shape;
}

size_t hot_page(const Sizes& sizes) {
  return static_cast<size_t>(sizes.sinks + sizes.ring);
}

class MixedCache final : public Cache {
 public:
  explicit MixedCache(const CachePlan& plan)
      : Cache(plan),
        sizes_(plan),
        hot_(plan.shape, plan.sequences, hot_page(sizes_)),
        cold_(cold_shape(plan), plan.sequences, static_cast<size_t>(sizes_.cold)),
        sequences_(plan.sequences) {}

  size_t clamped_values() const override { return hot_.clamped_values() + cold_.clamped_values(); }

  std::optional<SequenceId> create(uint64_t) override {
    for (size_t i = 0; i < sequences_.size(); ++i) {
      if (sequences_[i].used) continue;
      sequences_[i] = {.used = true, .length = 0, .appended = 0, .intact_from = sizes_.sinks};
      return static_cast<SequenceId>(i);
    }
    return std::nullopt;
  }

  std::optional<SequenceId> fork(SequenceId sequence) override {
    const std::optional<SequenceId> copy = create(0);
    if (!copy) return copy;
    const Sequence& from = sequences_[index(sequence)];
    sequences_[index(*copy)] = from;
    const bool has_come_round = from.intact_from > sizes_.sinks;
    const size_t hot = has_come_round ? hot_page(sizes_) : std::min(static_cast<size_t>(from.length), hot_page(sizes_));
    hot_.copy(index(sequence), index(*copy), hot);
    const int64_t cold = std::clamp<int64_t>(from.length - sizes_.sinks, 0, sizes_.cold);
    cold_.copy(index(sequence), index(*copy), static_cast<size_t>(cold));
    return copy;
  }

  void free(SequenceId sequence) override { sequences_[index(sequence)].used = false; }

  bool append(SequenceId sequence, size_t tokens) override {
    Sequence& s = sequences_[index(sequence)];
    if (tokens > static_cast<size_t>(sizes_.context - s.length)) return false;
    s.appended = static_cast<int64_t>(tokens);
    s.length += s.appended;
    s.intact_from = std::max(s.intact_from, s.length - sizes_.ring);
    return true;
  }

  size_t truncate(SequenceId sequence, size_t length) override {
    Sequence& s = sequences_[index(sequence)];
    assert(static_cast<int64_t>(length) <= s.length);
    s.length = static_cast<int64_t>(length);
    s.appended = 0;
    if (sizes_.hot_from(s.length) < s.intact_from) {  // the next token would have to see what the ring has lost
      s.length = std::min(s.length, sizes_.sinks);
      s.intact_from = sizes_.sinks;
    }
    return static_cast<size_t>(s.length);
  }

  size_t length(SequenceId sequence) const override { return static_cast<size_t>(sequences_[index(sequence)].length); }

  Slot slot(SequenceId sequence, size_t position) const override {
    assert(position < length(sequence));
    return static_cast<Slot>(sequence) * sizes_.context + static_cast<Slot>(position);
  }

  void store(size_t layer, std::span<const Slot> slots, const float* k, const float* v) override {
    for (const Slot slot : slots) {
      const int64_t sequence = slot / sizes_.context, position = slot % sizes_.context;
      const Slot hot = sequence * static_cast<Slot>(hot_page(sizes_)) + place(position);
      hot_.store(layer, {&hot, 1}, k, v);
      const int64_t beyond_sinks = position - sizes_.sinks;
      if (beyond_sinks >= 0 && beyond_sinks < sizes_.cold) {
        const Slot cold = sequence * sizes_.cold + beyond_sinks;
        cold_.store(layer, {&cold, 1}, k, v);
      }
      k += shape_.kv_heads * shape_.head_dim;
      v += shape_.kv_heads * shape_.head_dim;
    }
  }

  void view(SequenceId sequence, std::vector<TokenSpan>& spans) const override {
    const Sequence& s = sequences_[index(sequence)];
    if (s.length == 0) return;
    const ViewBuilder builder{*this, index(sequence), spans};
    builder.add_hot(0, std::min(s.length, sizes_.sinks));
    // What all queries read cold, then the blocks that cool on the way, twice, then what all read hot.
    const int64_t lost = (s.intact_from + kColdBlock - 1) / kColdBlock * kColdBlock;
    int64_t at = sizes_.hot_from(s.length - s.appended);
    if (s.intact_from > sizes_.sinks) at = std::max(at, lost);
    at = std::min(at, s.length);
    builder.add_cold(sizes_.sinks, at, 0);
    const int64_t hot = std::min(s.length, sizes_.hot_from(s.length - 1));
    for (int64_t end; at < hot; at = end) {
      end = (at / kColdBlock + 1) * kColdBlock;
      builder.add_cold(at, end, sizes_.cold_from(end));
      builder.add_hot(at, end, sizes_.cold_from(end));
    }
    builder.add_hot(std::max(at, sizes_.sinks), s.length);
  }

  /// All of the ring that is intact: a sequence restored can be truncated as far as it could before.
  void held(SequenceId sequence, std::vector<HeldRows>& held) const override {
    const Sequence& s = sequences_[index(sequence)];
    std::vector<TokenSpan> spans;
    const ViewBuilder builder{*this, index(sequence), spans};
    builder.add_hot(0, std::min(s.length, sizes_.sinks));
    builder.add_hot(std::max(s.intact_from, sizes_.sinks), s.length);
    const size_t hot = spans.size();
    builder.add_cold(sizes_.sinks, cold_end(s.length), 0);
    for (size_t i = 0; i < spans.size(); ++i) {
      spans[i].queries_from = 0;
      held.push_back({spans[i], i >= hot});
    }
  }

  std::optional<std::vector<WantedRows>> reserve(SequenceId sequence, size_t length) override {
    Sequence& s = sequences_[index(sequence)];
    assert(s.length == 0);
    if (length > static_cast<size_t>(sizes_.context)) return std::nullopt;
    const int64_t end = static_cast<int64_t>(length), sinks = std::min(end, sizes_.sinks);
    s.length = end;
    s.appended = 0;
    s.intact_from = std::max(end, sizes_.sinks);  // until restore brings more
    const int64_t ring = std::max(sinks, end - sizes_.ring), next_sees = std::clamp(sizes_.hot_from(end), ring, end);
    const CacheShape cold = cold_.shape();
    return std::vector<WantedRows>{{shape_.k_format, shape_.v_format, false, 0, sinks, 0},
                                   {shape_.k_format, shape_.v_format, false, ring, end, next_sees},
                                   {cold.k_format, cold.v_format, true, sinks, std::max(sinks, cold_end(end)), sinks}};
  }

  void restore(size_t layer, SequenceId sequence, const HeldRows& held) override {
    Sequence& s = sequences_[index(sequence)];
    const size_t page = index(sequence);
    if (held.cold) {
      cold_.restore(layer, page, static_cast<size_t>(held.rows.first_position - sizes_.sinks), held.rows);
      return;
    }
    for (size_t i = 0; i < held.rows.count; ++i) {
      const int64_t at = held.rows.position(i);
      hot_.restore(layer, page, static_cast<size_t>(place(at)), held.rows.part(i, 1));
      if (at >= sizes_.sinks) s.intact_from = std::min(s.intact_from, at);
    }
  }

 private:
  struct Sequence {
    bool used = false;
    int64_t length = 0;
    int64_t appended = 0;     // by the last append
    int64_t intact_from = 0;  // tokens after the sinks before this one are no longer in the ring
  };

  /// Makes spans of runs of positions.
  struct ViewBuilder {
    const MixedCache& cache;
    size_t page;
    std::vector<TokenSpan>& spans;

    void add_cold(int64_t begin, int64_t end, int64_t queries_from) const {
      if (begin >= end) return;
      const int64_t first = begin - cache.sizes_.sinks;
      spans.push_back(cache.cold_.span(page, static_cast<size_t>(end - begin), begin, static_cast<size_t>(first)));
      spans.back().queries_from = queries_from;
      spans.back().kind = SpanKind::cold;
    }
    /// In two where the ring comes round.
    void add_hot(int64_t begin, int64_t end, int64_t queries_until = std::numeric_limits<int64_t>::max()) const {
      for (int64_t next; begin < end; begin = next) {
        const int64_t place = cache.place(begin), page_end = static_cast<int64_t>(hot_page(cache.sizes_));
        next = std::min(end, begin + page_end - place);
        spans.push_back(cache.hot_.span(page, static_cast<size_t>(next - begin), begin, static_cast<size_t>(place)));
        spans.back().queries_until = queries_until;
        spans.back().kind = spans.back().first_position < cache.sizes_.sinks ? SpanKind::sinks : SpanKind::hot;
      }
    }
  };

  /// Where in its hot page a token lies.
  int64_t place(int64_t position) const {
    return position < sizes_.sinks ? position : sizes_.sinks + (position - sizes_.sinks) % sizes_.ring;
  }

  /// Where the tokens of a sequence end of which there are cold copies.
  int64_t cold_end(int64_t length) const { return std::min(length, sizes_.sinks + sizes_.cold); }

  size_t index(SequenceId sequence) const {
    assert(sequences_.at(static_cast<size_t>(sequence)).used);
    return static_cast<size_t>(sequence);
  }

  const Sizes sizes_;
  KvMemory hot_, cold_;
  std::vector<Sequence> sequences_;
};

size_t mixed_bytes(const CachePlan& plan) {
  const Sizes sizes(plan);
  return KvMemory::bytes_for(plan.shape, plan.sequences, hot_page(sizes)) +
         KvMemory::bytes_for(cold_shape(plan), plan.sequences, static_cast<size_t>(sizes.cold));
}

size_t mixed_spans(const CachePlan& plan) {
  return static_cast<size_t>(4 + 3 * Sizes(plan).blocks_of_step);
}

size_t mixed_bytes_read(const CachePlan& plan, size_t tokens) {
  const Sizes sizes(plan);
  const int64_t depth = static_cast<int64_t>(tokens);
  const int64_t cold = depth > 0 ? std::max<int64_t>(0, sizes.hot_from(depth - 1) - sizes.sinks) : 0;
  return KvMemory::token_bytes(cold_shape(plan)) * static_cast<size_t>(cold) +
         KvMemory::token_bytes(plan.shape) * static_cast<size_t>(depth - cold);
}

std::unique_ptr<Cache> make_mixed(const CachePlan& plan) {
  return std::make_unique<MixedCache>(plan);
}

/// A block of tokens becomes cold, and 64 queries read it so.
size_t mixed_shortest_prompt(const CachePlan& plan) {
  const int64_t sinks = plan.options.number(kSinkTokens);
  return static_cast<size_t>(plan.options.number(kHotTokens) + 63 + (sinks / kColdBlock + 1) * kColdBlock);
}

}  // namespace

const CacheLayout& mixed_layout() {
  static const CacheLayout layout{.name = "mixed",
                                  .options = kMixedOptions,
                                  .bytes = mixed_bytes,
                                  .spans = mixed_spans,
                                  .make = make_mixed,
                                  .bytes_read = mixed_bytes_read,
                                  .cold_formats = mixed_cold_formats,
                                  .shortest_prompt = mixed_shortest_prompt,
                                  .has_own_rows = true,
                                  .truncates_anywhere = false};
  return layout;
}

}  // namespace contexture
