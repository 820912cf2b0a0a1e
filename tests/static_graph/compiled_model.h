#pragma once

#include <filesystem>
#include <string>

#include "backends/static_graph/compile.h"
#include "support/random_model.h"

namespace contexture {

/// A compiled model in a folder that goes when this does.
class CompiledModel {
 public:
  CompiledModel(const ModelFile& file, CompileTask task, int threads = 2) : name_(".bin") {
    ThreadPool pool(threads);
    task.out = path();
    compile_model(file, task, pool);
  }
  ~CompiledModel() { std::filesystem::remove_all(path()); }
  CompiledModel(const CompiledModel&) = delete;
  CompiledModel& operator=(const CompiledModel&) = delete;

  std::string path() const { return name_.path() + ".graphs"; }

 private:
  TemporaryFile name_;
};

}  // namespace contexture
