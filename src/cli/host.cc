#include "cli/host.h"

#include <sstream>

#include "base/error.h"
#include "cache/layout.h"
#include "engine/model_identity.h"
#include "kernels/machine.h"
#include "kernels/matmul.h"

namespace contexture::cli {
namespace {

std::string formats_of(const CachePlan& plan) {
  return fmt::format("{}, K {}, V {}", plan.layout, name(plan.shape.k_format), name(plan.shape.v_format));
}

class Machine final : public Host {
 public:
  explicit Machine(const HostFlags& flags) : opened_(flags.model.open()) {}

  const Tokenizer& tokenizer() const override { return opened_.need_tokenizer(); }
  const Metadata& metadata() const override { return opened_.file.metadata; }
  size_t made_for() const override { return read_config(metadata()).context; }
  void start(RunOptions options) override { runtime_.emplace(opened_.file, options); }
  Executor& executor() override { return *runtime_; }
  std::string describe() const override {
    return fmt::format("{} ({})", human_bytes(plan()->cache_bytes), formats_of(plan()->cache));
  }
  const OpenedModel* opened() const override { return &opened_; }
  const MemoryPlan* plan() const override { return &runtime_->plan(); }
  const Transformer* model() const override { return &runtime_->model(); }
  Runtime* machine() override { return &*runtime_; }
  std::optional<size_t> clamped_values() override { return runtime_->cache().clamped_values(); }

 private:
  const OpenedModel opened_;
  std::optional<Runtime> runtime_;
};

/// The model of all ranks of a process: opened once, its weights loaded by the first that asks.
class SharedModel {
 public:
  explicit SharedModel(OpenedModel opened) : opened_(std::move(opened)) {}
  const OpenedModel& opened() const { return opened_; }
  std::shared_ptr<const Transformer> transformer(int threads) {
    const std::lock_guard lock(mutex_);
    if (!model_) model_ = load_transformer(opened_.file, threads);
    return model_;
  }

 private:
  const OpenedModel opened_;
  std::mutex mutex_;
  std::shared_ptr<const Transformer> model_;
};

class Rank final : public Host {
 public:
  Rank(const HostFlags& flags, SharedModel& shared, Communicator& ranks)
      : flags_(flags), shared_(shared), ranks_(ranks) {}

  const Tokenizer& tokenizer() const override { return shared_.opened().need_tokenizer(); }
  const Metadata& metadata() const override { return shared_.opened().file.metadata; }
  size_t made_for() const override { return read_config(metadata()).context; }
  /// Rank 0 says how large; the others hear it.
  void start(RunOptions options) override {
    executor_.reset();  // over ranks too, there is one at a time
    if (!hear_options(options)) return;
    options.ranks = static_cast<size_t>(ranks_.ranks());
    options.threads = flags_.ring.threads_of_rank(flags_.cache.threads);
    agree_on_flags();
    plan_ = plan_memory(shared_.opened().file, options);
    executor_.emplace(shared_.transformer(options.threads), sizes_of(*plan_), plan_->ring, ranks_,
                      flags_.ring.choice());
    const RingChoice& choice = executor_->choice();
    if (ranks_.rank() == 0 && ranks_.ranks() > 1 && !choice.mode.always) {
      log_info("--ring-mode auto: {:.3g} operations/s of attention a rank, {:.3g} B/s to the next one", choice.flops,
               choice.bandwidth);
    }
  }
  /// At the other ranks: does what rank 0 says, as long as it starts something.
  void obey() {
    for (;;) {
      start(flags_.cache.options(metadata()));
      if (!executor_) return;
      executor_->obey();
    }
  }
  /// At rank 0: there is nothing more to start.
  void end() {
    executor_.reset();
    RunOptions nothing;
    start(nothing);
  }

  Executor& executor() override { return *executor_; }
  std::string describe() const override {
    return fmt::format("{} a rank of {} ({})", human_bytes(plan_->cache_bytes), ranks_.ranks(),
                       formats_of(plan_->cache));
  }
  const OpenedModel* opened() const override { return &shared_.opened(); }
  const MemoryPlan* plan() const override { return &*plan_; }
  const Transformer* model() const override { return &executor_->model(); }
  void report(SequenceId sequence, Json* json) override {
    const std::vector<RingReport> ranks = executor_->report(sequence);
    if (json) {
      (*json)["ranks"] = ring_json(ranks);
    } else {
      print_ring(ranks);
    }
  }

 private:
  /// Rank 0's; false where there is nothing more to start.
  bool hear_options(RunOptions& options) {
    const auto dealing = static_cast<uint64_t>(options.dealing.value_or(dealing_of(options.cache.sequences)));
    uint64_t sizes[] = {options.cache.context, options.cache.sequences, options.chunk, options.logit_rows, dealing};
    ranks_.await_broadcast(0, std::as_writable_bytes(std::span(sizes)));
    if (sizes[0] == 0) return false;
    options.cache.context = sizes[0];
    options.cache.sequences = sizes[1];
    options.chunk = sizes[2];
    options.logit_rows = sizes[3];
    options.dealing = static_cast<Dealing>(sizes[4]);
    std::string own;
    for (const LayoutOptions::Given& given : options.cache.options.given()) {
      own += fmt::format("{} {} ", given.name, given.value.number);
    }
    std::istringstream all(broadcast_text(ranks_, 0, own));
    options.cache.options = {};
    std::string name;
    for (int64_t value = 0; all >> name >> value;) options.cache.options.set(name, value);
    return true;
  }
  /// What rank 0 does not say, since each has it from its flags and files, must be the same.
  void agree_on_flags() {
    const RunOptions options = flags_.cache.options(metadata());
    if (flags_.ring.local_ranks == 0 && ranks_.ranks() > 1) {
      agree(ranks_, "the model", mark_of_model(flags_.ring.threads_of_rank(flags_.cache.threads)));
    }
    agree(ranks_, "how the context is held",
          fmt::format("{}; {}; {} {:g} {:g}", contexture::describe(options.cache), all_options(options.cache),
                      flags_.ring.mode, flags_.ring.flops, flags_.ring.bandwidth));
  }
  /// The same where the model is: what it is made of, and all its bytes.
  std::string mark_of_model(int threads) const {
    const ModelConfig config = read_config(metadata());
    ThreadPool pool(threads);
    const Digest digest = identify_model(shared_.opened().file, pool);
    return fmt::format("{} of {} layers, {:016x}{:016x}", config.family, config.layers, digest.high, digest.low);
  }

  const HostFlags& flags_;
  SharedModel& shared_;
  Communicator& ranks_;
  std::optional<MemoryPlan> plan_;
  std::optional<RingExecutor> executor_;
};

class Graphs final : public Host {
 public:
  explicit Graphs(const HostFlags& flags)
      : model_(flags.compiled->options(flags.model.tokenizer, flags.cache.threads)) {}

  const Tokenizer& tokenizer() const override { return model_.tokenizer(); }
  const Metadata& metadata() const override { return model_.metadata_file().metadata; }
  size_t made_for() const override { return model_.executor().capacities().context; }
  void start(RunOptions) override {}
  Executor& executor() override { return model_.executor(); }
  std::string describe() const override {
    const StaticRunner& runner = model_.runner();
    return fmt::format("{} (static graphs, {}, mode {})", human_bytes(runner.kv().bytes()), name(runner.kv().update()),
                       name(runner.mode()));
  }
  /// How long shards took and what was copied, to the log.
  void report(SequenceId, Json*) override {
    const StaticRunner& runner = model_.runner();
    for (const bool prefill : {true, false}) {
      const std::vector<cxg_timings> timings = runner.timings(prefill);
      for (size_t i = 0; i < timings.size(); ++i) {
        if (timings[i].executions == 0) continue;
        log_debug(
            "{}, {}: {} executions of {:.3f} ms", runner.shards()[i].name, prefill ? "prefill_forward" : "kv_forward",
            timings[i].executions,
            1e-6 * static_cast<double>(timings[i].total_nanoseconds) / static_cast<double>(timings[i].executions));
      }
    }
    const FixedKv::Moved& moved = runner.kv().moved();
    log_info("copied: {} B of K, {} B of V, {} B rearranged between graphs; {} views registered", moved.k, moved.v,
             moved.rearranged, runner.memory().registered);
  }

 private:
  mutable StaticModel model_;
};

}  // namespace

void with_host(const HostFlags& flags, const std::function<void(Host&)>& body) {
  if (flags.ring.given({{"--context-dir", flags.compiled && flags.compiled->given()}})) {
    std::optional<SharedModel> shared;
    return flags.ring.run([&] { shared.emplace(flags.model.open()); },
                          [&](Communicator& ranks) {
                            Rank host(flags, *shared, ranks);
                            if (ranks.rank() != 0) return host.obey();
                            body(host);
                            host.end();
                          });
  }
  if (flags.compiled && flags.compiled->given()) {
    Graphs host(flags);
    return body(host);
  }
  Machine host(flags);
  body(host);
}

void log_run(const std::string& name, Host& host) {
  const MemoryPlan* const plan = host.plan();
  if (!plan) return;
  log_info("{}: {} of {} layers; {} of weights, {} of cache ({}), {} of workspace; {} threads", name,
           plan->config.family, plan->config.layers, human_bytes(plan->weights_bytes), human_bytes(plan->cache_bytes),
           contexture::describe(plan->cache), human_bytes(plan->workspace_bytes), plan->workspace.threads);
  log_debug("kernels for {}; steps of {} tokens", kernel_target(), plan->workspace.tokens);
}

}  // namespace contexture::cli
