#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <mutex>
#include <span>
#include <string>

#include "backends/ring/communicator.h"
#include "cli/command.h"
#include "engine/sampler.h"

namespace contexture::cli {

/// Flags of subcommands that run over ranks.
struct RingFlags {
  bool ring = false;
  int local_ranks = 0;
  std::string mode = "auto";
  double flops = RingChoice().flops, bandwidth = RingChoice().bandwidth;  // 0: measured
  int patience = 600;                                                     // seconds

  void add_to(CLI::App& command);
  /// Whether it runs over ranks. Throws Error where something is given too that goes on one machine only.
  struct Other {
    const char* flag;
    bool given;
  };
  bool given(std::initializer_list<Other> others = {}) const;
  RingChoice choice() const;
  /// Threads of each rank, where nobody asked for a number.
  int threads_of_rank(int asked) const;
  /// Runs `prepare` once, and then `body` once for every rank of this process, at once: all ranks with --local-ranks,
  /// else the one that mpirun started this process for. Where all ranks fail alike, one speaks.
  void run(const std::function<void()>& prepare, const std::function<void(Communicator&)>& body) const;
};

/// One model for all ranks of a process, loaded by the first that asks.
class SharedModel {
 public:
  explicit SharedModel(OpenedModel opened) : opened_(std::move(opened)) {}
  const OpenedModel& opened() const { return opened_; }
  /// A rank's runtime. Collective: throws Error where the ranks do not agree on the model or the plan.
  std::unique_ptr<Runtime> runtime(const RunOptions& options, Communicator& ranks, const RingFlags& flags);

 private:
  const OpenedModel opened_;
  std::mutex mutex_;
  std::shared_ptr<const Transformer> model_;
};

/// Takes rank 0's seed. Throws Error where the ranks would choose tokens in different ways.
void agree_on_sampling(Communicator& ranks, GenerateOptions& options);

/// What each rank holds and sent, as JSON and for people.
Json ring_json(const std::vector<RingReport>& reports);
void print_ring(const std::vector<RingReport>& reports);

}  // namespace contexture::cli
