#include "engine/runtime.h"

namespace contexture {

Runtime::Runtime(const ModelFile& file, const RunOptions& options)
    : plan_(plan_memory(file, options)),
      model_(file),
      cache_(make_cache(plan_.cache)),
      workspace_(plan_.config, plan_.workspace),
      pool_(options.threads) {}

}  // namespace contexture
