#include "cache/cache.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <new>

#include "base/error.h"
#include "cache/contiguous.h"
#include "cache/paged.h"
#include "kernels/attention.h"

namespace contexture {
namespace {

struct Layout {
  std::string_view name;
  size_t (*bytes)(const CachePlan&);
  size_t (*spans)(const CachePlan&);
  std::unique_ptr<Cache> (*make)(const CachePlan&);
};

constexpr Layout layouts[] = {
    {"contiguous", contiguous_bytes, contiguous_spans, make_contiguous},
    {"paged", paged_bytes, paged_spans, make_paged},
};

const Layout& layout_of(const CachePlan& plan) {
  for (const Format format : {plan.shape.k_format, plan.shape.v_format}) {
    if (!attention_reads(format)) {
      fail("no attention kernel reads a cache in {}; choose f32, f16 or bf16", name(format));
    }
  }
  for (const Layout& layout : layouts) {
    if (layout.name == plan.layout) return layout;
  }
  fail("unknown cache layout '{}'; known: {}", printable(plan.layout), fmt::join(cache_layouts(), ", "));
}

}  // namespace

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
