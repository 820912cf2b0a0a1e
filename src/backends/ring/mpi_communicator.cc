// Ranks over MPI, by the calls of libcontexture_mpi.so (mpi/mpi_calls.h). All are non-blocking and are tested until
// they are done, so that a rank that does not come ends the program and does not hang it. Messages of more than 1 GB
// are cut: MPI counts in int.

#include "backends/ring/mpi_communicator.h"

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <thread>

#include "backends/ring/mpi/mpi_calls.h"
#include "base/error.h"
#include "base/log.h"
#include "base/shipped.h"

namespace contexture {

int mpi_ranks_of_this_machine() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}) {
    if (const char* value = std::getenv(name)) return std::max(1, std::atoi(value));
  }
  return 1;
}

namespace {

constexpr size_t kMostAtOnce = size_t{1} << 30;
enum Tag { ring_tag, all_to_all_tag };

/// Stays loaded: MPI has threads and handlers of its own.
const MpiCalls& load_mpi() {
  // All its names are to be seen: Open MPI's own parts, which it loads, look for them.
  void* const library = dlopen(shipped_library("libcontexture_mpi.so").c_str(), RTLD_NOW | RTLD_GLOBAL);
  if (!library) {
    const char* const why = dlerror();
    fail("no ranks over MPI: {}; use --local-ranks N, or install libopenmpi-dev and build again",
         printable(why ? why : "libcontexture_mpi.so cannot be opened", 300));
  }
  const auto entry = reinterpret_cast<MpiEntry>(dlsym(library, kMpiEntryName));
  const MpiCalls* const calls = entry ? entry(MpiCalls::kVersion) : nullptr;
  if (!calls) fail("libcontexture_mpi.so is of another version; build it with this program, or use --local-ranks N");
  return *calls;
}

class MpiCommunicator final : public Communicator {
 public:
  MpiCommunicator(const MpiCalls& mpi, int rank, int ranks, std::chrono::seconds patience)
      : Communicator(rank, ranks, patience), mpi_(mpi) {}

  void progress() override {
    if (!is_open_) return;
    int done = 0;
    check(mpi_.test(&done));
    is_open_ = !done;
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
    std::vector<int> sizes(n), starts(n), widths(n, sizeof(int));
    for (size_t r = 0; r < n; ++r) starts[r] = static_cast<int>(r * sizeof(int));
    begin(mpi_.all_gather(&size, sizeof(size), sizes.data(), widths.data(), starts.data()));
    finish();
    starts[0] = 0;
    for (size_t r = 1; r < n; ++r) starts[r] = starts[r - 1] + sizes[r - 1];
    std::vector<std::byte> all(static_cast<size_t>(starts[n - 1] + sizes[n - 1]));
    begin(mpi_.all_gather(mine.data(), size, all.data(), sizes.data(), starts.data()));
    finish();
    std::vector<std::vector<std::byte> > gathered;
    for (size_t r = 0; r < n; ++r) gathered.emplace_back(all.begin() + starts[r], all.begin() + starts[r] + sizes[r]);
    return gathered;
  }

  void do_broadcast(int from, std::span<std::byte> bytes) override {
    in_pieces(bytes, [&](std::span<std::byte> piece) { return mpi_.broadcast(piece.data(), piece.size(), from); });
    finish();
  }

  void start_send(std::span<const std::byte> bytes, int to, Tag tag) {
    in_pieces(bytes, [&](std::span<const std::byte> p) { return mpi_.send(p.data(), p.size(), to, tag); });
  }

  void start_receive(std::span<std::byte> bytes, int from, Tag tag) {
    in_pieces(bytes, [&](std::span<std::byte> piece) { return mpi_.receive(piece.data(), piece.size(), from, tag); });
  }

  template <class Byte, class Call>
  void in_pieces(std::span<Byte> bytes, const Call& call) {
    for (size_t at = 0; at < bytes.size(); at += kMostAtOnce) {
      begin(call(bytes.subspan(at, std::min(kMostAtOnce, bytes.size() - at))));
    }
  }

  /// Something has begun, as this status says.
  void begin(int status) {
    check(status);
    is_open_ = true;
  }

  /// Until all that was started is done. First it only looks; then it lets others have the processor, of which there
  /// may be fewer than ranks; where it takes long (a person thinks), it sleeps.
  void finish() {
    constexpr int kTries = 2000;
    constexpr auto kLong = std::chrono::milliseconds(100);
    const auto start = std::chrono::steady_clock::now();
    for (int tries = 0; is_open_; ++tries) {
      progress();
      if (tries < kTries) continue;
      const auto waited = std::chrono::steady_clock::now() - start;
      if (waited > patience()) fail("rank {} waited {} s for another and gave up", rank(), patience().count());
      if (waited < kLong) {
        std::this_thread::yield();
      } else {
        std::this_thread::sleep_for(std::chrono::microseconds(200));
      }
    }
  }

  void check(int status) const {
    if (status == 0) return;
    char text[MpiCalls::kErrorBytes] = {};
    mpi_.error_text(status, text);
    fail("MPI: {}", printable(text, 200));
  }

  const MpiCalls& mpi_;
  bool is_open_ = false;  // something has begun and is not known to be done
};

/// Ends all ranks. Where all fail alike, rank 0 speaks for all.
void end_all(const MpiCalls& mpi, int rank, const std::string& what) {
  if (rank > 0) std::this_thread::sleep_for(std::chrono::milliseconds(300));
  tell("error: {}\n", what);
  mpi.end_all();
}

}  // namespace

void run_mpi_rank(const std::function<void(Communicator&)>& body, std::chrono::seconds patience) {
  const MpiCalls& mpi = load_mpi();
  int rank = 0, ranks = 1;
  if (mpi.open(&rank, &ranks) != 0) fail("MPI does not start; start the ranks with mpirun -n N");
  try {
    MpiCommunicator communicator(mpi, rank, ranks, patience);
    body(communicator);
    communicator.barrier();
  } catch (const std::bad_alloc&) {
    end_all(mpi, rank, fmt::format("rank {} is out of memory; use more ranks or a shorter context", rank));
  } catch (const std::exception& error) {
    end_all(mpi, rank, error.what());
  }
  mpi.close();
}

}  // namespace contexture
