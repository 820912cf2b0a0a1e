#include "cli/ring_flags.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include "backends/ring/local_communicator.h"
#include "backends/ring/mpi_communicator.h"
#include "base/error.h"
#include "engine/model_identity.h"

namespace contexture::cli {

void RingFlags::add_to(CLI::App& command) {
  CLI::Option* over_ranks =
      command.add_flag("--ring", ring,
                       "spread the context over ranks, each with the whole model: over those that mpirun started "
                       "(mpirun -n 4 contexture run --ring …), or --local-ranks");
  command.add_option("--local-ranks", local_ranks, "so many ranks in this process, without MPI")
      ->check(whole_number(1, 256))
      ->option_text("N")
      ->needs(over_ranks);
  command.add_option("--ring-mode", mode, "what travels between ranks; auto: what costs less (contexture ring plan)")
      ->check(CLI::IsMember({"auto", "pass-kv", "pass-q"}))
      ->option_text("auto|pass-kv|pass-q [auto]")
      ->needs(over_ranks);
  command.add_option("--ring-flops", flops, "for --ring-mode auto: operations/s of a rank's attention")
      ->check(number(1, 1e18))
      ->option_text("F [measured]")
      ->needs(over_ranks);
  command.add_option("--ring-bandwidth", bandwidth, "for --ring-mode auto: bytes/s from one rank to the next")
      ->check(number(1, 1e15))
      ->option_text("B [measured]")
      ->needs(over_ranks);
  command.add_option("--ring-timeout", patience, "seconds that a rank waits for another before all end")
      ->check(whole_number(1, 86400))
      ->option_text("SECONDS [600]")
      ->needs(over_ranks);
}

bool RingFlags::given(std::initializer_list<Other> others) const {
  for (const Other& other : others) {
    if (ring && other.given) fail("{} goes on one machine only; leave it out with --ring", other.flag);
  }
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

void RingFlags::run(const std::function<void()>& prepare, const std::function<void(Communicator&)>& body) const {
  if (local_ranks > 0) {
    if (const int started = mpi_ranks_of_this_machine(); started > 1) {
      fail("mpirun started {} ranks, and --local-ranks would start {} in each; leave one of them out", started,
           local_ranks);
    }
    prepare();
    return run_local_ranks(local_ranks, body, std::chrono::seconds(patience));
  }
  run_mpi_rank(
      [&](Communicator& ranks) {
        if (ranks.ranks() == 1) spdlog::warn("there is one rank; mpirun -n N starts more, and so does --local-ranks N");
        prepare();
        body(ranks);
      },
      std::chrono::seconds(patience));
}

/// The same where the model is: what it is made of, and all its bytes.
static std::string mark_of_model(const OpenedModel& opened, int threads) {
  const ModelConfig config = read_config(opened.file.metadata);
  ThreadPool pool(threads);
  const Digest digest = identify_model(opened.file, pool);
  return fmt::format("{} of {} layers, {:016x}{:016x}", config.family, config.layers, digest.high, digest.low);
}

std::unique_ptr<Runtime> SharedModel::runtime(const RunOptions& options, Communicator& ranks, const RingFlags& flags) {
  if (flags.local_ranks == 0 && ranks.ranks() > 1) agree(ranks, "the model", mark_of_model(opened_, options.threads));
  const MemoryPlan plan = plan_memory(opened_.file, options);
  const CachePlan& cache = plan.cache;
  const std::string planned =
      fmt::format("{}; pages of {}, {} sequences, steps of {}; {} {:g} {:g}", describe(cache), cache.page_tokens,
                  cache.sequences, plan.step_tokens, flags.mode, flags.flops, flags.bandwidth);
  agree(ranks, "how the context is held", planned);
  {
    const std::lock_guard lock(mutex_);
    if (!model_) {
      ThreadPool pool(plan.workspace.threads);
      model_ = std::make_shared<Transformer>(opened_.file, pool, cache.context);
    }
  }
  auto runtime = std::make_unique<Runtime>(model_, plan, ranks, flags.choice());
  const RingChoice& choice = runtime->ring()->choice();
  if (ranks.rank() == 0 && ranks.ranks() > 1 && !choice.mode.always) {
    spdlog::info("--ring-mode auto: {:.3g} operations/s of attention a rank, {:.3g} B/s to the next one", choice.flops,
                 choice.bandwidth);
  }
  return runtime;
}

void agree_on_sampling(Communicator& ranks, GenerateOptions& options) {
  ranks.broadcast(0, std::as_writable_bytes(std::span(&options.seed, 1)));
  agree(ranks, "how tokens are chosen",
        fmt::format("{} at most, temperature {:g}, top-k {}, top-p {:g}, min-p {:g}, repeat penalty {:g}{}{}",
                    options.max_tokens, options.temperature, options.top_k, options.top_p, options.min_p,
                    options.repeat_penalty, options.ignore_end ? ", past the end" : "",
                    options.stop.empty() ? "" : fmt::format(", until {}", fmt::join(options.stop, ", "))));
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
    tell("rank {}: {} tokens, K {} and V {}; sent {} around the ring, {} of results, {} besides; waited {:.2f} s\n",
         r.rank, r.tokens, human_bytes(r.k_bytes), human_bytes(r.v_bytes), human_bytes(r.ring_bytes),
         human_bytes(r.all_to_all_bytes), human_bytes(r.small_bytes), r.wait_seconds);
  }
}

}  // namespace contexture::cli
