#include "backends/ring/ring_attention.h"

#include <algorithm>
#include <cstring>

#include "base/error.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// Queries that are computed between two looks at the network.
constexpr size_t kQueriesAtOnce = 128;

size_t span_bytes(const TokenSpan& span, const AttentionShape& shape) {
  return span.count * shape.kv_heads *
         (kv_row_bytes(span.k_format, shape.head_dim) + kv_row_bytes(span.v_format, shape.head_dim));
}

/// What is told at the beginning of a step, as 64-bit numbers.
class Teller {
 public:
  void tell(int64_t number) { numbers_.push_back(number); }
  std::span<const std::byte> bytes() const { return std::as_bytes(std::span(numbers_)); }

 private:
  std::vector<int64_t> numbers_;
};

class Listener {
 public:
  Listener(std::span<const std::byte> bytes, size_t rank) : numbers_(bytes.size() / sizeof(int64_t)), rank_(rank) {
    if (!numbers_.empty()) std::memcpy(numbers_.data(), bytes.data(), numbers_.size() * sizeof(int64_t));
  }
  int64_t hear() {
    if (at_ == numbers_.size()) disagree();
    return numbers_[at_++];
  }
  /// A number of things that take at least one number each.
  size_t hear_count() {
    const int64_t count = hear();
    if (count < 0 || static_cast<size_t>(count) > numbers_.size()) disagree();
    return static_cast<size_t>(count);
  }
  void finish() const {
    if (at_ != numbers_.size()) disagree();
  }
  [[noreturn]] void disagree() const {
    fail("rank {} is at another step than this one; start all ranks with the same files and flags", rank_);
  }

 private:
  std::vector<int64_t> numbers_;
  size_t rank_, at_ = 0;
};

/// K and V of a span, a run of rows each: (kv_heads, count) of K, then of V.
std::byte* pack(const TokenSpan& span, const AttentionShape& shape, std::byte* to) {
  for (const bool is_k : {true, false}) {
    const size_t row = kv_row_bytes(is_k ? span.k_format : span.v_format, shape.head_dim);
    const size_t stride = is_k ? span.k_token_stride : span.v_token_stride;
    for (size_t head = 0; head < shape.kv_heads; ++head) {
      const std::byte* from = is_k ? span.k_row(0, head) : span.v_row(0, head);
      if (stride == row) {
        std::memcpy(to, from, span.count * row);
      } else {
        for (size_t t = 0; t < span.count; ++t) std::memcpy(to + t * row, from + t * stride, row);
      }
      to += span.count * row;
    }
  }
  return to;
}

/// Merges a row's part into it: values and state.
void merge_row(AttentionState& state, float* values, const AttentionState& part, const float* part_values, size_t dim) {
  if (part.sum == 0) return;  // nothing was seen there
  const MergeFactors factors = merge(state, part);
  for (size_t d = 0; d < dim; ++d) values[d] = values[d] * factors.a + part_values[d] * factors.b;
}

}  // namespace

size_t RingAttention::partial_bytes(size_t tokens, const AttentionShape& shape) {
  return tokens * shape.heads * (shape.head_dim * sizeof(float) + sizeof(AttentionState));
}

RingAttention::Partial RingAttention::partial(std::byte* memory, size_t tokens, const AttentionShape& shape) {
  float* values = reinterpret_cast<float*>(memory);
  return {values, reinterpret_cast<AttentionState*>(values + tokens * shape.heads * shape.head_dim)};
}

static size_t visiting_bytes(const RingSizes& s) {
  return s.ranks == 1 ? 0 : std::max(s.shard_bytes, s.step_tokens * s.heads * s.head_dim * sizeof(float));
}

/// Of the partial results of one rank's queries.
static size_t partial_room(const RingSizes& s) {
  const size_t bytes = s.step_tokens * s.heads * (s.head_dim * sizeof(float) + sizeof(AttentionState));
  return s.ranks == 1 ? 0 : AlignedArray<std::byte>::bytes_for(bytes);
}

RingAttention::RingAttention(Communicator& ranks, const RingSizes& sizes)
    : ranks_(ranks),
      sizes_(sizes),
      all_(static_cast<size_t>(ranks.ranks())),
      visiting_{AlignedArray<std::byte>(visiting_bytes(sizes)), AlignedArray<std::byte>(visiting_bytes(sizes))},
      partials_(sizes.ranks * partial_room(sizes)),
      returned_(sizes.ranks * partial_room(sizes)),
      states_(sizes.ranks == 1 ? 0 : sizes.step_tokens * sizes.heads),
      sent_to_(all_.size()),
      sent_from_(all_.size()) {
  queries_.reserve(std::max(kQueriesAtOnce, sizes.sequences));
  own_.reserve(sizes.sequences);
  arrived_.reserve(sizes.sequences);
}

size_t RingAttention::bytes_for(const RingSizes& s) {
  return 2 * AlignedArray<std::byte>::bytes_for(visiting_bytes(s)) + 2 * s.ranks * partial_room(s) +
         (s.ranks == 1 ? 0 : AlignedArray<AttentionState>::bytes_for(s.step_tokens * s.heads));
}

void RingAttention::begin(std::span<const RingSequence> sequences, const AttentionShape& shape) {
  Teller mine;
  mine.tell(static_cast<int64_t>(sequences.size()));
  for (const RingSequence& sequence : sequences) {
    mine.tell(static_cast<int64_t>(sequence.positions.size()));
    for (const int64_t position : sequence.positions) mine.tell(position);
    mine.tell(static_cast<int64_t>(sequence.view.size()));
    for (const TokenSpan& s : sequence.view) {
      for (const int64_t number :
           {static_cast<int64_t>(s.k_format), static_cast<int64_t>(s.v_format), static_cast<int64_t>(s.count),
            s.first_position, s.position_stride, s.queries_from, s.queries_until}) {
        mine.tell(number);
      }
    }
  }
  const std::vector<std::vector<std::byte>> told = ranks_.all_gather(mine.bytes());
  new_tokens_ = held_tokens_ = 0;
  for (size_t r = 0; r < all_.size(); ++r) {
    Listener from(told[r], r);
    Rank& rank = all_[r];
    rank.tokens = rank.shard_bytes = 0;
    if (from.hear_count() != sequences.size()) from.disagree();
    rank.parts.resize(sequences.size());
    for (Part& part : rank.parts) {
      part.positions.resize(from.hear_count());
      for (int64_t& position : part.positions) position = from.hear();
      part.spans.resize(from.hear_count());
      for (TokenSpan& s : part.spans) {
        s.k_format = static_cast<Format>(from.hear());
        s.v_format = static_cast<Format>(from.hear());
        s.count = static_cast<size_t>(from.hear());
        s.first_position = from.hear();
        s.position_stride = from.hear();
        s.queries_from = from.hear();
        s.queries_until = from.hear();
        if (!is_kv_format(s.k_format) || !is_kv_format(s.v_format)) from.disagree();
        rank.shard_bytes += span_bytes(s, shape);
        held_tokens_ += s.count;
      }
      rank.tokens += part.positions.size();
    }
    from.finish();
    new_tokens_ += rank.tokens;
    if (ranks_.ranks() > 1 && (rank.tokens > sizes_.step_tokens || rank.shard_bytes > sizes_.shard_bytes)) {
      fail("rank {} has {} tokens of a step and {} bytes of a layer; the plan has room for {} and {}", r, rank.tokens,
           rank.shard_bytes, sizes_.step_tokens, sizes_.shard_bytes);
    }
  }
}

RingAttention::Bytes RingAttention::bytes_of(RingPass pass, const AttentionShape& shape) const {
  Bytes bytes;
  for (int step = 0; step + 1 < ranks_.ranks(); ++step) {
    const Rank& passed = all_[static_cast<size_t>(source(step))];
    bytes.ring += pass == RingPass::kv ? passed.shard_bytes : passed.tokens * shape.heads * shape.head_dim * 4;
  }
  for (int r = 0; pass == RingPass::q && r < ranks_.ranks(); ++r) {
    if (r != ranks_.rank()) bytes.all_to_all += partial_bytes(all_[static_cast<size_t>(r)].tokens, shape);
  }
  return bytes;
}

void RingAttention::attend_part(const Rank& of, const std::vector<CacheView>& views, const float* q, float* out,
                                AttentionState* states, const AttentionShape& shape, AttentionScratch& scratch,
                                ThreadPool& pool) {
  queries_.clear();
  size_t gathered = 0, token = 0;
  const auto flush = [&] {
    if (!queries_.empty()) contexture::attend(queries_, shape, scratch, pool);
    queries_.clear();
    gathered = 0;
    ranks_.progress();
  };
  for (size_t i = 0; i < of.parts.size(); ++i) {
    const std::span<const int64_t> positions = of.parts[i].positions;
    for (size_t done = 0, count; done < positions.size(); done += count, token += count) {
      count = std::min(positions.size() - done, kQueriesAtOnce - gathered);
      const size_t row = token * shape.heads;
      queries_.push_back({.q = q + row * shape.head_dim,
                          .out = out + row * shape.head_dim,
                          .positions = positions.subspan(done, count),
                          .view = views[i],
                          .states = states + row});
      gathered += count;
      if (gathered == kQueriesAtOnce) flush();
    }
  }
  flush();
}

/// Makes `arrived_` a shard's spans, as they lie in the memory that it arrived in.
void RingAttention::place_arrived(Rank& rank, const std::byte* bytes, const AttentionShape& shape) {
  arrived_.clear();
  for (Part& part : rank.parts) {
    for (TokenSpan& span : part.spans) {
      span.k_token_stride = kv_row_bytes(span.k_format, shape.head_dim);
      span.v_token_stride = kv_row_bytes(span.v_format, shape.head_dim);
      span.k_head_stride = span.count * span.k_token_stride;
      span.v_head_stride = span.count * span.v_token_stride;
      span.k = bytes;
      span.v = span.k + shape.kv_heads * span.k_head_stride;
      bytes = span.v + shape.kv_heads * span.v_head_stride;
    }
    arrived_.emplace_back(part.spans);
  }
}

void RingAttention::attend(RingPass pass, const AttentionShape& shape, std::span<const RingSequence> sequences,
                           const float* q, float* out, AttentionScratch& scratch, ThreadPool& pool) {
  if (ranks_.ranks() == 1) {
    queries_.clear();
    size_t row = 0;
    for (const RingSequence& s : sequences) {
      if (s.positions.empty()) continue;
      queries_.push_back({.q = q + row, .out = out + row, .positions = s.positions, .view = s.view});
      row += s.positions.size() * shape.heads * shape.head_dim;
    }
    if (!queries_.empty()) contexture::attend(queries_, shape, scratch, pool);
    return;
  }
  own_.clear();
  for (const RingSequence& s : sequences) own_.push_back(s.view);
  if (pass == RingPass::kv) {
    pass_kv(shape, q, out, scratch, pool);
  } else {
    pass_q(shape, q, out, scratch, pool);
  }
  // What is merged is not divided yet.
  pool.run(at(ranks_.rank()).tokens * shape.heads, [&](size_t row, int) {
    const float scale = states_[row].sum == 0 ? 0 : 1 / states_[row].sum;
    for (size_t d = 0; d < shape.head_dim; ++d) out[row * shape.head_dim + d] *= scale;
  });
}

/// Alg. 2: in step j the K and V of rank k - j are here.
void RingAttention::pass_kv(const AttentionShape& shape, const float* q, float* out, AttentionScratch& scratch,
                            ThreadPool& pool) {
  const Rank& mine = at(ranks_.rank());
  std::byte* packed = visiting_[0].data();
  for (const CacheView& view : own_) {
    for (const TokenSpan& span : view) packed = pack(span, shape, packed);
  }
  for (int step = 0; step < ranks_.ranks(); ++step) {
    Rank& here = at(source(step));
    const std::byte* shard = visiting_[step % 2].data();
    const bool more = step + 1 < ranks_.ranks();
    if (more) {
      ranks_.start_exchange({shard, here.shard_bytes},
                            {visiting_[(step + 1) % 2].data(), at(source(step + 1)).shard_bytes});
    }
    if (step == 0) {
      attend_part(mine, own_, q, out, states_.data(), shape, scratch, pool);
    } else {
      const Partial part = partial(partials_.data(), mine.tokens, shape);
      place_arrived(here, shard, shape);
      attend_part(mine, arrived_, q, part.values, part.states, shape, scratch, pool);
      merge_part(part, out, shape, pool);
    }
    if (more) ranks_.finish_exchange();
  }
}

/// Alg. 3, and with single tokens of many sequences Alg. 4: in step j the Q of rank k - j is here. What was made of it
/// goes back at the end.
void RingAttention::pass_q(const AttentionShape& shape, const float* q, float* out, AttentionScratch& scratch,
                           ThreadPool& pool) {
  const int ranks = ranks_.ranks(), me = ranks_.rank();
  const size_t room = partial_room(sizes_), q_bytes = shape.heads * shape.head_dim * sizeof(float);
  const auto made = [&](int of) {
    return partial(partials_.data() + static_cast<size_t>(of) * room, at(of).tokens, shape);
  };
  const auto returned = [&](int from) { return returned_.data() + static_cast<size_t>(from) * room; };
  for (int step = 0; step < ranks; ++step) {
    const int of = source(step);
    const float* here = step == 0 ? q : reinterpret_cast<const float*>(visiting_[step % 2].data());
    const bool more = step + 1 < ranks;
    if (more) {
      ranks_.start_exchange(std::as_bytes(std::span(here, at(of).tokens * q_bytes / sizeof(float))),
                            {visiting_[(step + 1) % 2].data(), at(source(step + 1)).tokens * q_bytes});
    }
    const Partial part = step == 0 ? Partial{out, states_.data()} : made(of);
    attend_part(at(of), own_, here, part.values, part.states, shape, scratch, pool);
    if (more) ranks_.finish_exchange();
  }
  for (int r = 0; r < ranks; ++r) {
    if (r == me) continue;
    sent_to_[static_cast<size_t>(r)] = {reinterpret_cast<const std::byte*>(made(r).values),
                                        partial_bytes(at(r).tokens, shape)};
    sent_from_[static_cast<size_t>(r)] = {returned(r), partial_bytes(at(me).tokens, shape)};
  }
  ranks_.all_to_all(sent_to_, sent_from_);
  for (int step = 1; step < ranks; ++step) {
    merge_part(partial(returned(source(step)), at(me).tokens, shape), out, shape, pool);
  }
}

/// Merges a part into this rank's results: Eq. 4 of the paper, the states being the maximum and the sum whose
/// log-sum-exp it writes.
void RingAttention::merge_part(const Partial& part, float* out, const AttentionShape& shape, ThreadPool& pool) {
  pool.run(at(ranks_.rank()).tokens * shape.heads, [&](size_t row, int) {
    merge_row(states_[row], out + row * shape.head_dim, part.states[row], part.values + row * shape.head_dim,
              shape.head_dim);
  });
}

}  // namespace contexture
