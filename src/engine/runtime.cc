#include "engine/runtime.h"

#include "backends/ring/sharded_cache.h"
#include "base/error.h"

namespace contexture {

Runtime::Runtime(const ModelFile& file, const MemoryPlan& plan)
    : plan_(plan),
      pool_(plan_.workspace.threads),
      model_(std::make_shared<Transformer>(file, pool_, plan_.cache.context)),
      cache_(make_cache(plan_.cache)),
      workspace_(plan_.config, plan_.workspace) {}

Runtime::Runtime(std::shared_ptr<const Transformer> model, const MemoryPlan& plan, Communicator& ranks,
                 const RingChoice& choice)
    : plan_(plan),
      pool_(plan_.workspace.threads),
      model_(std::move(model)),
      cache_(std::make_unique<ShardedCache>(plan_.cache, ranks.rank(), ranks.ranks())),
      workspace_(plan_.config, plan_.workspace) {
  if (plan_.ring.ranks != static_cast<size_t>(ranks.ranks())) {
    fail("the plan is for {} ranks, and there are {}", plan_.ring.ranks, ranks.ranks());
  }
  ring_ = std::make_unique<RingForward>(ranks, *model_, static_cast<ShardedCache&>(*cache_), workspace_, pool_,
                                        plan_.ring, choice);
}

std::span<const float> Runtime::forward(const Step& step) {
  if (ring_) return ring_->run(step);
  return model_->forward(step, *cache_, workspace_, pool_);
}

OwnedSequence::OwnedSequence(Cache& cache) : cache_(cache) {
  const std::optional<SequenceId> id = cache.create();
  if (!id) fail("no room for another sequence; make the cache for more of them");
  id_ = *id;
}

}  // namespace contexture
