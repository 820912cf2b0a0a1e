#include "engine/runtime.h"

namespace contexture {

Runtime::Runtime(const ModelFile& file, const MemoryPlan& plan)
    : plan_(plan),
      model_(file),
      cache_(make_cache(plan_.cache)),
      workspace_(plan_.config, plan_.workspace),
      pool_(plan_.workspace.threads) {}

}  // namespace contexture
