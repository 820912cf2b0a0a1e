#include "cache/cache.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <bit>
#include <new>

#include "base/error.h"
#include "cache/contiguous.h"
#include "cache/kv_memory.h"
#include "cache/mixed.h"
#include "cache/paged.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

struct Layout {
  std::string_view name;
  size_t (*bytes)(const CachePlan&);
  size_t (*spans)(const CachePlan&);
  size_t (*bytes_read)(const CachePlan&, size_t tokens);
  std::unique_ptr<Cache> (*make)(const CachePlan&);
};

/// Of layouts that hold all tokens alike.
size_t all_bytes_read(const CachePlan& plan, size_t tokens) {
  return KvMemory::token_bytes(plan.shape) * tokens;
}

constexpr Layout layouts[] = {
    {"contiguous", contiguous_bytes, contiguous_spans, all_bytes_read, make_contiguous},
    {"paged", paged_bytes, paged_spans, all_bytes_read, make_paged},
    {"mixed", mixed_bytes, mixed_spans, mixed_bytes_read, make_mixed},
};

const Layout& layout_of(const CachePlan& plan) {
  for (const Format format : {plan.shape.k_format, plan.shape.v_format, plan.cold_k_format, plan.cold_v_format}) {
    if (!is_kv_format(format)) {
      fail("no attention kernel reads a cache in {}; choose f32, f16, bf16, q8_0 or q4_0", name(format));
    }
  }
  rotation_of(plan);  // or an error, before anything is made
  for (const Layout& layout : layouts) {
    if (layout.name == plan.layout) return layout;
  }
  fail("unknown cache layout '{}'; known: {}", printable(plan.layout), fmt::join(cache_layouts(), ", "));
}

}  // namespace

Rotation rotation_of(const CachePlan& plan) {
  const bool possible = std::has_single_bit(plan.shape.head_dim);
  if (plan.rotate) {
    if (*plan.rotate && !possible) {
      fail("heads of {} channels cannot be rotated, only powers of two can; leave --rotate out", plan.shape.head_dim);
    }
    return {*plan.rotate, *plan.rotate};
  }
  const bool has_cold = plan.layout == "mixed";
  const auto helps = [&](Format format, Format cold) {
    return possible && (format == Format::q4_0 || (has_cold && cold == Format::q4_0));
  };
  return {helps(plan.shape.k_format, plan.cold_k_format), helps(plan.shape.v_format, plan.cold_v_format)};
}

std::string describe(const Rotation& rotation) {
  if (rotation == Rotation{}) return {};
  return rotation.k && rotation.v ? ", rotated" : rotation.k ? ", K rotated" : ", V rotated";
}

std::string describe(const CachePlan& plan) {
  std::string text = fmt::format("{}, {} tokens, K {} V {}", plan.layout, plan.context, name(plan.shape.k_format),
                                 name(plan.shape.v_format));
  if (plan.layout == "mixed") {
    text += fmt::format(" for {} hot tokens and {} sinks, cold K {} V {}", plan.hot_tokens, plan.sink_tokens,
                        name(plan.cold_k_format), name(plan.cold_v_format));
  }
  return text + describe(rotation_of(plan));
}

void Cache::held(size_t layer, SequenceId sequence, std::vector<HeldRows>& held) const {
  std::vector<TokenSpan> spans;
  view(layer, sequence, spans);
  for (const TokenSpan& span : spans) held.push_back({span});
}

std::optional<std::vector<WantedRows>> Cache::reserve(SequenceId sequence, size_t length) {
  if (!append(sequence, length)) return std::nullopt;
  return std::vector<WantedRows>{{shape_.k_format, shape_.v_format, false, 0, static_cast<int64_t>(length), 0}};
}

std::vector<std::string_view> cache_layouts() {
  std::vector<std::string_view> names;
  for (const Layout& layout : layouts) names.push_back(layout.name);
  return names;
}

size_t bytes_of(const CachePlan& plan) {
  return layout_of(plan).bytes(plan);
}

size_t spans_of(const CachePlan& plan) {
  return layout_of(plan).spans(plan);
}

size_t bytes_read(const CachePlan& plan, size_t tokens) {
  return layout_of(plan).bytes_read(plan, tokens);
}

std::unique_ptr<Cache> make_cache(const CachePlan& plan) {
  const Layout& layout = layout_of(plan);
  const size_t bytes = layout.bytes(plan);
  try {
    return layout.make(plan);
  } catch (const std::bad_alloc&) {
    fail("no memory for a cache of {} tokens ({:.1f} GB); ask for a shorter context", plan.context,
         static_cast<double>(bytes) / 1e9);
  }
}

}  // namespace contexture
