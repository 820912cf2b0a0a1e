#include "engine/runtime.h"

namespace contexture {

std::shared_ptr<const Transformer> load_transformer(const ModelFile& file, int threads) {
  ThreadPool pool(threads);
  return std::make_shared<Transformer>(file, pool);
}

std::unique_ptr<Executor> make_executor(std::shared_ptr<const Transformer> model, const MemoryPlan& plan) {
  return std::make_unique<Runtime>(std::move(model), plan);
}

}  // namespace contexture
