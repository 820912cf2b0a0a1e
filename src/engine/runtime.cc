#include "engine/runtime.h"

#include "base/error.h"

namespace contexture {

Runtime::Runtime(const ModelFile& file, const MemoryPlan& plan)
    : plan_(plan),
      model_(file, plan_.cache.context),
      cache_(make_cache(plan_.cache)),
      workspace_(plan_.config, plan_.workspace),
      pool_(plan_.workspace.threads) {}

OwnedSequence::OwnedSequence(Cache& cache) : cache_(cache) {
  const std::optional<SequenceId> id = cache.create();
  if (!id) fail("no room for another sequence; make the cache for more of them");
  id_ = *id;
}

}  // namespace contexture
