#include "cli/ring_flags.h"

#include <fmt/ranges.h>

#include "backends/ring/local_communicator.h"
#include "backends/ring/mpi_communicator.h"
#include "base/error.h"
#include "base/log.h"

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
        if (ranks.ranks() == 1) log_warning("there is one rank; mpirun -n N starts more, and so does --local-ranks N");
        prepare();
        body(ranks);
      },
      std::chrono::seconds(patience));
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
