// Ranks over MPI (Open MPI 4). All calls are non-blocking and are tested until they are done, so that a rank that does
// not come ends the program and does not hang it. Messages of more than 1 GB are cut: MPI counts in int.

#include "backends/ring/mpi_communicator.h"

#include <cstdlib>
#include <string>

#include "base/error.h"
#include "base/log.h"

#ifdef CONTEXTURE_MPI
#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <thread>
#endif

namespace contexture {

int mpi_ranks_of_this_machine() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}) {
    if (const char* value = std::getenv(name)) return std::max(1, std::atoi(value));
  }
  return 1;
}

#ifndef CONTEXTURE_MPI

bool has_mpi() {
  return false;
}

void run_mpi_rank(const std::function<void(Communicator&)>&, std::chrono::seconds) {
  fail("this program was built without MPI; use --local-ranks N, or install libopenmpi-dev and build it again");
}

#else

namespace {

constexpr size_t kMostAtOnce = size_t{1} << 30;
enum Tag { ring_tag, all_to_all_tag };

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(int rank, int ranks, std::chrono::seconds patience) : Communicator(rank, ranks, patience) {}

  void progress() override {
    if (requests_.empty()) return;
    int done = 0;
    check(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE));
    if (done) requests_.clear();
  }

 private:
  void do_start_exchange(std::span<const std::byte> send, std::span<std::byte> receive) override {
    start_receive(receive, previous(), ring_tag);
    start_send(send, next(), ring_tag);
  }

  void do_finish_exchange() override { finish(); }

  void do_all_to_all(std::span<const std::span<const std::byte> > send,
                     std::span<const std::span<std::byte> > receive) override {
    // Each begins with the rank after itself, so that not all send to the same one.
    for (int i = 1; i < ranks(); ++i) {
      const int from = (rank() - i + ranks()) % ranks();
      start_receive(receive[static_cast<size_t>(from)], from, all_to_all_tag);
    }
    for (int i = 1; i < ranks(); ++i) {
      const int to = (rank() + i) % ranks();
      start_send(send[static_cast<size_t>(to)], to, all_to_all_tag);
    }
    finish();
  }

  std::vector<std::vector<std::byte> > do_all_gather(std::span<const std::byte> mine) override {
    const size_t n = static_cast<size_t>(ranks());
    const int size = static_cast<int>(mine.size());
    std::vector<int> sizes(n), starts(n, 0);
    start(
        [&](MPI_Request* r) { return MPI_Iallgather(&size, 1, MPI_INT, sizes.data(), 1, MPI_INT, MPI_COMM_WORLD, r); });
    finish();
    for (size_t r = 1; r < n; ++r) starts[r] = starts[r - 1] + sizes[r - 1];
    std::vector<std::byte> all(static_cast<size_t>(starts[n - 1] + sizes[n - 1]));
    start([&](MPI_Request* r) {
      return MPI_Iallgatherv(mine.data(), size, MPI_BYTE, all.data(), sizes.data(), starts.data(), MPI_BYTE,
                             MPI_COMM_WORLD, r);
    });
    finish();
    std::vector<std::vector<std::byte> > gathered;
    for (size_t r = 0; r < n; ++r) gathered.emplace_back(all.begin() + starts[r], all.begin() + starts[r] + sizes[r]);
    return gathered;
  }

  void do_broadcast(int from, std::span<std::byte> bytes) override {
    for (size_t at = 0; at < bytes.size(); at += kMostAtOnce) {
      const size_t count = std::min(kMostAtOnce, bytes.size() - at);
      start([&](MPI_Request* r) {
        return MPI_Ibcast(bytes.data() + at, static_cast<int>(count), MPI_BYTE, from, MPI_COMM_WORLD, r);
      });
    }
    finish();
  }

  void start_send(std::span<const std::byte> bytes, int to, Tag tag) {
    for (size_t at = 0; at < bytes.size(); at += kMostAtOnce) {
      const size_t count = std::min(kMostAtOnce, bytes.size() - at);
      start([&](MPI_Request* r) {
        return MPI_Isend(bytes.data() + at, static_cast<int>(count), MPI_BYTE, to, tag, MPI_COMM_WORLD, r);
      });
    }
  }

  void start_receive(std::span<std::byte> bytes, int from, Tag tag) {
    for (size_t at = 0; at < bytes.size(); at += kMostAtOnce) {
      const size_t count = std::min(kMostAtOnce, bytes.size() - at);
      start([&](MPI_Request* r) {
        return MPI_Irecv(bytes.data() + at, static_cast<int>(count), MPI_BYTE, from, tag, MPI_COMM_WORLD, r);
      });
    }
  }

  template <class Call>
  void start(const Call& call) {
    check(call(&requests_.emplace_back(MPI_REQUEST_NULL)));
  }

  /// Until all that was started is done. First it only looks; then it lets others have the processor, of which there
  /// may be fewer than ranks; where it takes long (a person thinks), it sleeps.
  void finish() {
    constexpr int kTries = 2000;
    constexpr auto kLong = std::chrono::milliseconds(100);
    const auto begin = std::chrono::steady_clock::now();
    for (int tries = 0; !requests_.empty(); ++tries) {
      progress();
      if (tries < kTries) continue;
      const auto waited = std::chrono::steady_clock::now() - begin;
      if (waited > patience()) fail("rank {} waited {} s for another and gave up", rank(), patience().count());
      if (waited < kLong) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
  }

  static void check(int status) {
    if (status == MPI_SUCCESS) return;
    char text[MPI_MAX_ERROR_STRING] = {};
    int length = 0;
    MPI_Error_string(status, text, &length);
    fail("MPI: {}", printable(text, 200));
  }

  std::vector<MPI_Request> requests_;
};

/// Ends all ranks. Where all fail alike, rank 0 speaks for all.
[[noreturn]] void end_all(int rank, const std::string& what) {
  if (rank > 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  tell("error: {}\n", what);
  std::fflush(stdout);
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::_Exit(1);
}

}  // namespace

bool has_mpi() {
  return true;
}

void run_mpi_rank(const std::function<void(Communicator&)>& body, std::chrono::seconds patience) {
  if (MPI_Init(nullptr, nullptr) != MPI_SUCCESS) fail("MPI does not start; start the ranks with mpirun -n N");
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  int rank = 0, ranks = 1;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_size(MPI_COMM_WORLD, &ranks);
  try {
    MpiCommunicator communicator(rank, ranks, patience);
    body(communicator);
    communicator.barrier();
  } catch (const std::bad_alloc&) {
    end_all(rank, fmt::format("rank {} is out of memory; use more ranks or a shorter context", rank));
  } catch (const std::exception& error) {
    end_all(rank, error.what());
  }
  MPI_Finalize();
}

#endif

}  // namespace contexture
