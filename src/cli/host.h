#pragma once

#include <functional>
#include <memory>
#include <optional>

#include "backends/ring/ring_executor.h"
#include "cli/command.h"
#include "cli/ring_flags.h"
#include "cli/static_flags.h"
#include "engine/static_model.h"

namespace contexture::cli {

/// A model as the flags name it, and what runs it: this machine, ranks that share the context, or compiled graphs. What
/// a command does with it is the same for all.
class Host {
 public:
  virtual ~Host() = default;
  virtual const Tokenizer& tokenizer() const = 0;
  virtual const Metadata& metadata() const = 0;
  /// Tokens that the model was made for.
  virtual size_t made_for() const = 0;
  /// Makes what runs it, for so many tokens of context and sequences at once. Once, before executor().
  virtual void start(RunOptions options) = 0;
  virtual Executor& executor() = 0;
  /// How the context is held, in a few words.
  virtual std::string describe() const = 0;
  /// What it has to say of a text that was run, beside what all say: into `json`, or to people where that is null.
  virtual void report(SequenceId, Json*) {}
  /// Values of K and V that were beyond what their format holds; nothing where that is not counted.
  virtual std::optional<size_t> clamped_values() { return std::nullopt; }

  /// Null where it is another.
  virtual const OpenedModel* opened() const { return nullptr; }
  virtual const MemoryPlan* plan() const { return nullptr; }
  virtual const Transformer* model() const { return nullptr; }
  virtual Runtime* machine() { return nullptr; }
};

/// Flags that choose a host.
struct HostFlags {
  const ModelFlags& model;
  const CacheFlags& cache;
  const RingFlags& ring;
  const StaticFlags* compiled = nullptr;  // where a command takes them
};

/// Opens the model and runs `body`. Over ranks it runs at rank 0, whom the others obey once it has started.
void with_host(const HostFlags& flags, const std::function<void(Host&)>& body);

/// One line about what runs.
void log_run(const std::string& name, Host& host);

}  // namespace contexture::cli
