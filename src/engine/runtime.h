#pragma once

#include <memory>

#include "backends/cpu/cpu_executor.h"
#include "engine/opened_model.h"
#include "engine/plan.h"

namespace contexture {

/// Loads a model's weights, which any number of executors share.
std::shared_ptr<const Transformer> load_transformer(const ModelFile& file, int threads);

/// A model on this machine's processor, made as planned: all memory is allocated here, before the first token.
class Runtime final : public CpuExecutor {
 public:
  /// `plan` is of this file.
  Runtime(const ModelFile& file, const MemoryPlan& plan)
      : Runtime(load_transformer(file, plan.workspace.threads), plan) {}
  Runtime(const ModelFile& file, const RunOptions& options) : Runtime(file, plan_memory(file, options)) {}
  Runtime(std::shared_ptr<const Transformer> model, const MemoryPlan& plan)
      : CpuExecutor(std::move(model), sizes_of(plan)), plan_(plan) {}

  const MemoryPlan& plan() const { return plan_; }

 private:
  MemoryPlan plan_;
};

/// What runs a model as planned: on this machine's processor.
std::unique_ptr<Executor> make_executor(std::shared_ptr<const Transformer> model, const MemoryPlan& plan);

}  // namespace contexture
