// Any bytes as a trace: they open or they are refused by Error. What opened is read, and small ones are recomputed.

#include <cstdint>

#include "base/error.h"
#include "files/gguf.h"
#include "verify/attention_check.h"
#include "verify/trace.h"

using namespace contexture;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static ThreadPool pool(1);
  try {
    const Trace trace(read_gguf(std::as_bytes(std::span(data, size)), "fuzz.gguf", kTraceFile));
    for (size_t i = 0; i < trace.size(); ++i) {
      TracedAttention attention = trace.attention(i);
      size_t tokens = 0;
      for (const TokenSpan& span : attention.view) tokens += span.count;
      // What a check costs grows with queries times tokens: the time of a large one is no fault.
      if (attention.q.size() * tokens > 100000) continue;
      const AttentionCheck check = check_attention(attention.queries(), attention.shape, pool);
      if (check.ok() && !(check.max_abs_error >= 0)) __builtin_trap();
    }
  } catch (const Error&) {
  }
  return 0;
}
