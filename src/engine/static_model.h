#pragma once

#include <memory>
#include <optional>
#include <string>

#include "backends/static_graph/context_directory.h"
#include "backends/static_graph/static_executor.h"
#include "engine/opened_model.h"

namespace contexture {

/// What to run of a folder that `compile` wrote, and how.
struct StaticLoadOptions {
  std::string directory = {};
  std::string tokenizer_path = {};  ///< empty: the folder's own
  std::string backend = "reference";
  KvUpdate update = KvUpdate::smart_mask;
  std::optional<GraphMode> mode = {};  ///< nothing: as compiled
  int threads = 0;                     ///< 0: one a physical core
  uint32_t log_level = 0;              ///< the backend's
};

/// A compiled model, loaded with its tokenizer: checked, bound and ready to run one sequence. Tells the log how it is
/// laid out: at level 1 the memory, at level 2 every tensor of every shard.
class StaticModel {
 public:
  /// Throws Error where the folder is wrong, the backend is none, or they do not fit.
  explicit StaticModel(const StaticLoadOptions& options);

  const ContextDirectory& directory() const { return directory_; }
  const ModelFile& metadata_file() const { return opened_.file; }  ///< tokenizer and chat template
  const Tokenizer& tokenizer() const { return opened_.need_tokenizer(); }
  StaticRunner& runner() { return *runner_; }
  Executor& executor() { return *executor_; }

 private:
  ContextDirectory directory_;
  OpenedModel opened_;
  std::unique_ptr<StaticRunner> runner_;
  std::optional<StaticExecutor> executor_;
};

}  // namespace contexture
