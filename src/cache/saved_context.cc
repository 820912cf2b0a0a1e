#include "cache/saved_context.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/error.h"
#include "kernels/hadamard.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// Bytes of K, or V, of a run in one layer.
size_t side_bytes(const SavedContext& saved, const SavedRun& run, Format format) {
  return saved.kv_heads * static_cast<size_t>(run.count) * kv_row_bytes(format, saved.head_dim);
}

/// A run's rows where they lie in the bytes of a layer, and what follows them.
TokenSpan span_of(const SavedContext& saved, const SavedRun& run, const std::byte*& at) {
  const size_t k_row = kv_row_bytes(run.k_format, saved.head_dim), v_row = kv_row_bytes(run.v_format, saved.head_dim);
  const size_t count = static_cast<size_t>(run.count);
  const std::byte* v = at + saved_aligned(side_bytes(saved, run, run.k_format));
  const TokenSpan span{.k_format = run.k_format,
                       .v_format = run.v_format,
                       .k = at,
                       .v = v,
                       .k_token_stride = k_row,
                       .k_head_stride = count * k_row,
                       .v_token_stride = v_row,
                       .v_head_stride = count * v_row,
                       .count = count,
                       .first_position = run.first};
  at = v + saved_aligned(side_bytes(saved, run, run.v_format));
  return span;
}

/// Part of a run that is brought into a cache, copied or converted.
struct Piece {
  size_t run;
  int64_t first, count;
  bool exact;
};

/// Which runs bring the rows that a cache wants.
class Pieces {
 public:
  Pieces(const SavedContext& saved, const Rotation& rotation) : saved_(saved), rotation_(rotation) {}

  std::vector<Piece> of(const WantedRows& wanted) const {
    std::vector<Piece> pieces;
    for (int64_t at = wanted.first, end; at < wanted.end; at = end) {
      const size_t best = best_at(wanted, at);
      end = std::min(wanted.end, saved_.runs[best].first + saved_.runs[best].count);
      for (size_t r = 0; r < saved_.runs.size(); ++r) {  // up to where a better one begins
        const int64_t first = saved_.runs[r].first;
        if (first > at && first < end && rank(wanted, saved_.runs[r]) > rank(wanted, saved_.runs[best])) end = first;
      }
      if (!is_exact(wanted, saved_.runs[best]) && at < wanted.needed_from) {
        pieces.clear();  // what is not held exactly is held from here on, or not at all
        end = std::min(end, wanted.needed_from);
        continue;
      }
      pieces.push_back({best, at, end - at, is_exact(wanted, saved_.runs[best])});
    }
    return pieces;
  }

 private:
  bool is_exact(const WantedRows& wanted, const SavedRun& run) const {
    return run.k_format == wanted.k_format && run.v_format == wanted.v_format && saved_.rotation == rotation_;
  }
  /// Exact rows before others, then the finest.
  size_t rank(const WantedRows& wanted, const SavedRun& run) const {
    if (is_exact(wanted, run)) return SIZE_MAX;
    return kv_row_bytes(run.k_format, saved_.head_dim) + kv_row_bytes(run.v_format, saved_.head_dim);
  }
  size_t best_at(const WantedRows& wanted, int64_t position) const {
    size_t best = SIZE_MAX;
    for (size_t r = 0; r < saved_.runs.size(); ++r) {
      const SavedRun& run = saved_.runs[r];
      if (position < run.first || position - run.first >= run.count) continue;
      if (best == SIZE_MAX || rank(wanted, run) > rank(wanted, saved_.runs[best])) best = r;
    }
    if (best == SIZE_MAX) fail("a saved context lacks the token at position {}", position);
    return best;
  }

  const SavedContext& saved_;
  const Rotation& rotation_;
};

/// Decodes rows and encodes them as a cache wants them, some tokens at a time.
class Converter {
 public:
  Converter(const SavedContext& saved, const Rotation& rotation)
      : saved_(saved),
        turn_k_(saved.rotation.k != rotation.k),
        turn_v_(saved.rotation.v != rotation.v),
        values_(saved.head_dim) {}

  /// Hands over `from` in the wanted formats. Returns values clamped.
  size_t convert(const TokenSpan& from, const WantedRows& wanted, const std::function<void(const TokenSpan&)>& take) {
    constexpr size_t kTokens = 64;
    const size_t k_row = kv_row_bytes(wanted.k_format, saved_.head_dim);
    const size_t v_row = kv_row_bytes(wanted.v_format, saved_.head_dim);
    k_.resize(kTokens * saved_.kv_heads * k_row);
    v_.resize(kTokens * saved_.kv_heads * v_row);
    size_t clamped = 0;
    for (size_t done = 0; done < from.count; done += kTokens) {
      const TokenSpan some = from.part(done, std::min(kTokens, from.count - done));
      for (size_t t = 0; t < some.count; ++t) {
        for (size_t head = 0; head < saved_.kv_heads; ++head) {
          const size_t to = t * saved_.kv_heads + head;
          clamped += row(some.k_format, some.k_row(t, head), wanted.k_format, k_.data() + to * k_row, turn_k_);
          clamped += row(some.v_format, some.v_row(t, head), wanted.v_format, v_.data() + to * v_row, turn_v_);
        }
      }
      take({.k_format = wanted.k_format,
            .v_format = wanted.v_format,
            .k = k_.data(),
            .v = v_.data(),
            .k_token_stride = saved_.kv_heads * k_row,
            .k_head_stride = k_row,
            .v_token_stride = saved_.kv_heads * v_row,
            .v_head_stride = v_row,
            .count = some.count,
            .first_position = some.first_position});
    }
    return clamped;
  }

 private:
  size_t row(Format from_format, const std::byte* from, Format to_format, std::byte* to, bool turn) {
    if (from_format == to_format && !turn) {
      std::copy_n(from, kv_row_bytes(to_format, saved_.head_dim), to);
      return 0;
    }
    decode_kv_row(from_format, from, values_.data(), saved_.head_dim);
    if (turn) hadamard(values_.data(), 1, saved_.head_dim);  // its own inverse
    return encode_kv_row(to_format, values_.data(), to, saved_.head_dim);
  }

  const SavedContext& saved_;
  bool turn_k_, turn_v_;
  std::vector<float> values_;
  std::vector<std::byte> k_, v_;
};

}  // namespace

size_t SavedContext::layer_bytes() const {
  size_t bytes = 0;
  for (const SavedRun& run : runs) {
    bytes += saved_aligned(side_bytes(*this, run, run.k_format)) + saved_aligned(side_bytes(*this, run, run.v_format));
  }
  return bytes;
}

void SavedContext::check() const {
  if (length < 0 || runs.size() > kMostSavedRuns) fail("{} tokens in {} runs", length, runs.size());
  if (head_dim == 0 || head_dim % 2 != 0 || (rotation != Rotation{} && !std::has_single_bit(head_dim))) {
    fail("heads of {} channels, which cannot be or cannot be rotated", head_dim);
  }
  for (const SavedRun& run : runs) {
    if (run.first < 0 || run.count < 1 || run.first > length || run.count > length - run.first) {
      fail("a run of tokens lies outside its {} tokens", length);
    }
    if (!is_kv_format(run.k_format) || !is_kv_format(run.v_format)) fail("rows in formats that no cache has");
    for (const Format format : {run.k_format, run.v_format}) {
      size_t bytes = kv_row_bytes(format, head_dim);
      bool overflow = false;
      for (const size_t factor : {kv_heads, static_cast<size_t>(run.count), layers}) {
        overflow |= __builtin_mul_overflow(bytes, factor, &bytes);
      }
      if (overflow || bytes > SIZE_MAX / 16) fail("more bytes of K and V than can be counted");
    }
  }
  int64_t covered = 0;
  for (bool more = true; more && covered < length;) {
    more = false;
    for (const SavedRun& run : runs) {
      if (run.first > covered || run.first + run.count <= covered) continue;
      covered = run.first + run.count;
      more = true;
    }
  }
  if (covered < length) fail("the token at position {} is missing", covered);
}

SavedContext describe_context(const Cache& cache, SequenceId sequence) {
  const CacheShape& shape = cache.shape();
  SavedContext saved{.layers = shape.layers,
                     .kv_heads = shape.kv_heads,
                     .head_dim = shape.head_dim,
                     .rotation = cache.rotation(),
                     .length = static_cast<int64_t>(cache.length(sequence)),
                     .runs = {}};
  std::vector<HeldRows> held;
  cache.held(sequence, held);
  for (const auto& [rows, cold] : held) {
    if (rows.count == 0) continue;
    const SavedRun next{rows.k_format, rows.v_format, cold, rows.first_position, static_cast<int64_t>(rows.count)};
    if (!saved.runs.empty()) {
      SavedRun& last = saved.runs.back();
      if (last == SavedRun{next.k_format, next.v_format, cold, last.first, next.first - last.first}) {
        last.count += next.count;
        continue;
      }
    }
    saved.runs.push_back(next);
  }
  return saved;
}

void save_layer(const Cache& cache, SequenceId sequence, const SavedContext& saved, size_t layer,
                const ByteSink& sink) {
  std::vector<HeldRows> held;
  cache.held(sequence, held);
  for (HeldRows& h : held) h.rows = h.rows.in_layer(layer);
  constexpr std::array<std::byte, kSavedAlignment> zeros{};
  size_t at = 0;
  const auto write = [&](const std::byte* from, size_t bytes) {
    sink({from, bytes});
    at += bytes;
  };
  // A run's spans follow each other; its K comes before its V, head by head.
  for (size_t begin = 0, end; begin < held.size(); begin = end) {
    int64_t position = held[begin].rows.first_position;
    const auto continues = [&](const HeldRows& h) {
      return h.rows.first_position == position && h.cold == held[begin].cold &&
             h.rows.k_format == held[begin].rows.k_format && h.rows.v_format == held[begin].rows.v_format;
    };
    for (end = begin; end < held.size() && continues(held[end]); ++end) position += held[end].rows.count;
    for (const bool is_v : {false, true}) {
      for (size_t head = 0; head < saved.kv_heads; ++head) {
        for (size_t h = begin; h < end; ++h) {
          const TokenSpan& rows = held[h].rows;
          const size_t row = kv_row_bytes(is_v ? rows.v_format : rows.k_format, saved.head_dim);
          if ((is_v ? rows.v_token_stride : rows.k_token_stride) == row) {
            write(is_v ? rows.v_row(0, head) : rows.k_row(0, head), rows.count * row);
            continue;
          }
          for (size_t t = 0; t < rows.count; ++t) write(is_v ? rows.v_row(t, head) : rows.k_row(t, head), row);
        }
      }
      write(zeros.data(), saved_aligned(at) - at);
    }
  }
}

std::optional<Restored> restore_context(Cache& cache, SequenceId sequence, const SavedContext& saved,
                                        const std::function<const std::byte*(size_t layer)>& rows) {
  const std::optional<std::vector<WantedRows>> wanted = cache.reserve(sequence, static_cast<size_t>(saved.length));
  if (!wanted) return std::nullopt;
  const Pieces pieces(saved, cache.rotation());
  Converter converter(saved, cache.rotation());
  Restored restored;
  std::vector<TokenSpan> spans(saved.runs.size());
  for (size_t layer = 0; layer < saved.layers; ++layer) {
    const std::byte* at = rows(layer);
    for (size_t r = 0; r < spans.size(); ++r) spans[r] = span_of(saved, saved.runs[r], at);
    for (const WantedRows& want : *wanted) {
      for (const Piece& piece : pieces.of(want)) {
        const size_t first = static_cast<size_t>(piece.first - saved.runs[piece.run].first);
        const TokenSpan from = spans[piece.run].part(first, static_cast<size_t>(piece.count));
        if (piece.exact) {
          cache.restore(layer, sequence, {from, want.cold});
          continue;
        }
        restored.converted += from.count * saved.kv_heads;
        restored.clamped += converter.convert(from, want, [&](const TokenSpan& converted) {
          cache.restore(layer, sequence, {converted, want.cold});
        });
      }
    }
  }
  return restored;
}

SwappedContext swap_out(const Cache& cache, SequenceId sequence) {
  SwappedContext swapped{describe_context(cache, sequence), {}};
  swapped.rows.reserve(swapped.saved.layers * swapped.saved.layer_bytes());
  for (size_t layer = 0; layer < swapped.saved.layers; ++layer) {
    save_layer(cache, sequence, swapped.saved, layer, [&](std::span<const std::byte> bytes) {
      swapped.rows.insert(swapped.rows.end(), bytes.begin(), bytes.end());
    });
  }
  return swapped;
}

bool swap_in(Cache& cache, SequenceId sequence, const SwappedContext& swapped) {
  const size_t bytes = swapped.saved.layer_bytes();
  return restore_context(cache, sequence, swapped.saved,
                         [&](size_t layer) { return swapped.rows.data() + layer * bytes; })
      .has_value();
}

}  // namespace contexture
