// Any bytes as a session file whose checksums are taken to be right: it is read, or Error is thrown. What was read is
// restored in a cache of every layout, in other formats too, and every row that a query would see is decoded.

#include <cstdint>

#include "base/error.h"
#include "base/log.h"
#include "cache/layout.h"
#include "engine/session.h"
#include "tensor/kv_row.h"

namespace {

using namespace contexture;

/// Only what costs little: a fuzzer's time is better spent than on copying.
bool is_small(const SavedContext& c) {
  return c.layers <= 2 && c.kv_heads <= 4 && c.head_dim <= 64 && c.head_dim % 8 == 0 && c.length <= 300 &&
         c.layers > 0 && c.kv_heads > 0;
}

void restore_in(std::string_view layout, Format format, const SessionFile& session) {
  const SavedContext& context = session.context;
  CachePlan plan{.layout = std::string(layout),
                 .shape = {context.layers, context.kv_heads, context.head_dim, format, Format::f16},
                 .context = 300,
                 .step_tokens = 16,
                 .options = own_options(layout, {{"page_tokens", 8},
                                                 {"hot_tokens", session.options.size() % 64 + 1},
                                                 {"sink_tokens", session.options.size() % 8}}),
                 .resumable = true};
  const auto cache = make_cache(plan);
  const SequenceId sequence = cache->create().value();
  const size_t stride = context.layer_bytes() + 16;
  if (!restore_context(*cache, sequence, context,
                       [&](size_t layer) { return session.layers.data() + layer * stride; })) {
    __builtin_trap();
  }
  std::vector<float> row(context.head_dim);
  std::vector<TokenSpan> spans;
  cache->view(sequence, spans);
  int64_t seen = 0;
  for (const TokenSpan& span : spans) {
    if (!span.seen_from(context.length)) continue;
    for (size_t t = 0; t < span.count; ++t, ++seen) {
      if (span.position(t) != seen) __builtin_trap();
      for (size_t head = 0; head < context.kv_heads; ++head) {
        decode_kv_row(span.k_format, span.k_row(t, head), row.data(), row.size());
        decode_kv_row(span.v_format, span.v_row(t, head), row.data(), row.size());
      }
    }
  }
  if (seen != context.length) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  set_log([](LogLevel, std::string_view) {});
  // Aligned as a mapped file is.
  static std::vector<std::max_align_t> memory;
  memory.resize(size / sizeof(std::max_align_t) + 1);
  std::copy_n(data, size, reinterpret_cast<uint8_t*>(memory.data()));
  const auto bytes = std::as_bytes(std::span(memory)).first(size);
  for (const bool verify : {true, false}) {
    try {
      const SessionFile session = read_session(bytes, "fuzz.session", verify);
      if (!is_small(session.context)) continue;
      restore_in("contiguous", Format::f16, session);
      restore_in("paged", Format::q4_0, session);
      restore_in("mixed", Format::f16, session);
      restore_in("mixed", Format::q8_0, session);
    } catch (const Error&) {
    }
  }
  return 0;
}
