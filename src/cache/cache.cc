#include "cache/cache.h"

#include <fmt/format.h>

#include <bit>
#include <new>

#include "base/error.h"
#include "cache/kv_memory.h"
#include "cache/layout.h"
#include "tensor/kv_row.h"

namespace contexture {
namespace {

/// The plan's layout, or an error where the plan cannot be carried out, before anything is made.
const CacheLayout& checked_layout_of(const CachePlan& plan) {
  check_options(plan);
  for (const Format format : {plan.shape.k_format, plan.shape.v_format}) {
    if (!is_kv_format(format)) {
      fail("no attention kernel reads a cache in {}; choose {}", name(format), kv_format_names());
    }
  }
  rotation_of(plan);
  return layout_of(plan);
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
  const KvFormatPair held{plan.shape.k_format, plan.shape.v_format}, cold = cold_formats(plan).value_or(held);
  const auto helps = [&](Format a, Format b) { return possible && (a == Format::q4_0 || b == Format::q4_0); };
  return {helps(held.k, cold.k), helps(held.v, cold.v)};
}

std::string describe(const Rotation& rotation) {
  if (rotation == Rotation{}) return {};
  return rotation.k && rotation.v ? ", rotated" : rotation.k ? ", K rotated" : ", V rotated";
}

std::string describe(const CachePlan& plan) {
  std::string text = fmt::format("{}, {} tokens, K {} V {}", plan.layout, plan.context, name(plan.shape.k_format),
                                 name(plan.shape.v_format));
  for (const LayoutOption& option : layout_of(plan).options) {
    if (option.decides_rows) text += fmt::format(", {} {}", option.label, option.text_of(plan.options.number(option)));
  }
  return text + describe(rotation_of(plan));
}

void Cache::held(SequenceId sequence, std::vector<HeldRows>& held) const {
  std::vector<TokenSpan> spans;
  view(sequence, spans);
  for (const TokenSpan& span : spans) held.push_back({span});
}

std::optional<std::vector<WantedRows>> Cache::reserve(SequenceId sequence, size_t length) {
  if (!append(sequence, length)) return std::nullopt;
  return std::vector<WantedRows>{{shape_.k_format, shape_.v_format, false, 0, static_cast<int64_t>(length), 0}};
}

std::vector<std::string_view> cache_layouts() {
  std::vector<std::string_view> names;
  for (const CacheLayout* layout : all_layouts()) names.push_back(layout->name);
  return names;
}

size_t bytes_of(const CachePlan& plan) {
  return checked_layout_of(plan).bytes(plan);
}

size_t spans_of(const CachePlan& plan) {
  return checked_layout_of(plan).spans(plan);
}

size_t bytes_read(const CachePlan& plan, size_t tokens) {
  const auto bytes_read = checked_layout_of(plan).bytes_read;
  return bytes_read ? bytes_read(plan, tokens) : KvMemory::token_bytes(plan.shape) * tokens;
}

std::unique_ptr<Cache> make_cache(const CachePlan& plan) {
  const CacheLayout& layout = checked_layout_of(plan);
  const size_t bytes = layout.bytes(plan);
  try {
    return layout.make(plan);
  } catch (const std::bad_alloc&) {
    fail("no memory for a cache of {} tokens ({:.1f} GB); ask for a shorter context", plan.context,
         static_cast<double>(bytes) / 1e9);
  }
}

}  // namespace contexture
