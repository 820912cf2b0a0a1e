#include "engine/runtime.h"

namespace contexture {

std::shared_ptr<const Transformer> load_transformer(const ModelFile& file, int threads) {
  ThreadPool pool(threads);
  return std::make_shared<Transformer>(file, pool);
}

}  // namespace contexture
