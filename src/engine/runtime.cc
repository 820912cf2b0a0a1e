#include "engine/runtime.h"

#include "base/error.h"

namespace contexture {

Runtime::Runtime(const ModelFile& file, const MemoryPlan& plan)
    : plan_(plan),
      pool_(plan_.workspace.threads),
      model_(file, pool_, plan_.cache.context),
      cache_(make_cache(plan_.cache)),
      workspace_(plan_.config, plan_.workspace) {}

OwnedSequence::OwnedSequence(Cache& cache) : cache_(cache) {
  const std::optional<SequenceId> id = cache.create();
  if (!id) fail("no room for another sequence; make the cache for more of them");
  id_ = *id;
}

}  // namespace contexture
