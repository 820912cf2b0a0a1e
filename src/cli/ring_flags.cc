#include "cli/ring_flags.h"

#include "base/error.h"
#include "engine/model_identity.h"
#include "ring/local_communicator.h"
#include "ring/mpi_communicator.h"

namespace contexture::cli {

void RingFlags::add_to(CLI::App& command) {
  command.add_flag("--ring", ring,
                   "spread the context over ranks, each with the whole model: over those that mpirun started "
                   "(mpirun -n 4 contexture run --ring …), or --local-ranks");
  command.add_option("--local-ranks", local_ranks, "with --ring: so many ranks in this process, without MPI")
      ->check(whole_number(1, 256))
      ->option_text("N");
  command.add_option("--ring-mode", mode, "with --ring: what travels; auto: what costs less (contexture ring plan)")
      ->check(CLI::IsMember({"auto", "pass-kv", "pass-q"}))
      ->capture_default_str();
  command.add_option("--ring-flops", flops, "with --ring-mode auto: operations/s of a rank's attention")
      ->check(number(1, 1e18))
      ->capture_default_str();
  command.add_option("--ring-bandwidth", bandwidth, "with --ring-mode auto: bytes/s from one rank to the next")
      ->check(number(1, 1e15))
      ->capture_default_str();
  command.add_option("--ring-timeout", patience, "with --ring: seconds that a rank waits for another before all end")
      ->check(whole_number(1, 86400))
      ->capture_default_str();
}

bool RingFlags::given() const {
  if (!ring && local_ranks > 0) fail("--local-ranks is a number of ranks of a ring; add --ring");
  return ring;
}

RingChoice RingFlags::choice() const {
  return {.mode = *ring_mode_from_name(mode), .flops = flops, .bandwidth = bandwidth};
}

int RingFlags::threads_of_rank(int asked) const {
  if (asked > 0) return asked;
  const int here = local_ranks > 0 ? local_ranks : mpi_ranks_of_this_machine();
  return std::max(1, physical_cores() / here);
}

void RingFlags::run(const std::function<void(Communicator&)>& body) const {
  if (local_ranks > 0) return run_local_ranks(local_ranks, body, std::chrono::seconds(patience));
  run_mpi_rank(body, std::chrono::seconds(patience));
}

std::unique_ptr<Runtime> SharedModel::runtime(const RunOptions& options, Communicator& ranks, const RingFlags& flags) {
  const MemoryPlan plan = plan_memory(file_, options);
  const CachePlan& cache = plan.cache;
  const std::string planned =
      fmt::format("{}; pages of {}, {} sequences, steps of {}; {} {:g} {:g}", describe(cache), cache.page_tokens,
                  cache.sequences, plan.step_tokens, flags.mode, flags.flops, flags.bandwidth);
  agree(ranks, "how the context is held", std::as_bytes(std::span(planned)));
  {
    const std::lock_guard lock(mutex_);
    if (!model_) {
      ThreadPool pool(plan.workspace.threads);
      model_ = std::make_shared<Model>(file_, pool, cache.context);
    }
  }
  auto runtime = std::make_unique<Runtime>(model_, plan, ranks, flags.choice());
  if (flags.local_ranks == 0) {  // those of one process have one file
    const Digest digest = identify_model(file_, runtime->pool());
    agree(ranks, "the model", std::as_bytes(std::span(&digest, 1)));
  }
  return runtime;
}

void share_seed(Communicator& ranks, GenerateOptions& options) {
  ranks.broadcast(0, std::as_writable_bytes(std::span(&options.seed, 1)));
}

Json ring_json(const std::vector<RingReport>& reports) {
  Json ranks = Json::array();
  for (const RingReport& r : reports) {
    ranks.push_back({{"rank", r.rank},
                     {"tokens", r.tokens},
                     {"k_bytes", r.k_bytes},
                     {"v_bytes", r.v_bytes},
                     {"ring_bytes_sent", r.ring_bytes},
                     {"all_to_all_bytes_sent", r.all_to_all_bytes},
                     {"other_bytes_sent", r.small_bytes},
                     {"pass_kv_steps", r.kv_steps},
                     {"pass_q_steps", r.q_steps},
                     {"wait_seconds", r.wait_seconds}});
  }
  return ranks;
}

void print_ring(const std::vector<RingReport>& reports) {
  for (const RingReport& r : reports) {
    fmt::print(
        stderr,
        "rank {}: {} tokens, K {} and V {}; sent {} around the ring, {} of results, {} besides; waited {:.2f} s\n",
        r.rank, r.tokens, human_bytes(r.k_bytes), human_bytes(r.v_bytes), human_bytes(r.ring_bytes),
        human_bytes(r.all_to_all_bytes), human_bytes(r.small_bytes), r.wait_seconds);
  }
}

}  // namespace contexture::cli
