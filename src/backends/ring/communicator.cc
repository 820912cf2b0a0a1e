#include "backends/ring/communicator.h"

#include <chrono>
#include <cstring>
#include <type_traits>
#include <utility>

#include "base/error.h"

namespace contexture {

template <class Call>
auto Communicator::timed(const Call& call) {
  struct Timer {
    explicit Timer(double& seconds) : seconds(seconds), begin(std::chrono::steady_clock::now()) {}
    ~Timer() { seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count(); }
    double& seconds;
    std::chrono::steady_clock::time_point begin;
  };
  const Timer timer(traffic_.wait_seconds);
  return call();
}

void Communicator::start_exchange(std::span<const std::byte> send, std::span<std::byte> receive) {
  traffic_.ring_bytes += send.size();
  do_start_exchange(send, receive);
}

void Communicator::finish_exchange() {
  timed([&] { do_finish_exchange(); });
}

void Communicator::all_to_all(std::span<const std::span<const std::byte>> send,
                              std::span<const std::span<std::byte>> receive) {
  for (size_t r = 0; r < send.size(); ++r) {
    if (static_cast<int>(r) != rank_) traffic_.all_to_all_bytes += send[r].size();
  }
  timed([&] { do_all_to_all(send, receive); });
}

std::vector<std::vector<std::byte>> Communicator::all_gather(std::span<const std::byte> mine) {
  traffic_.small_bytes += mine.size() * static_cast<size_t>(ranks_ - 1);
  return timed([&] { return do_all_gather(mine); });
}

void Communicator::broadcast(int from, std::span<std::byte> bytes) {
  if (from == rank_) traffic_.small_bytes += bytes.size() * static_cast<size_t>(ranks_ - 1);
  timed([&] { do_broadcast(from, bytes); });
}

void Communicator::gather(int to, std::span<const std::byte> mine, std::span<const std::span<std::byte>> receive) {
  std::vector<std::span<const std::byte>> send(static_cast<size_t>(ranks_));
  if (to != rank_) {
    send[static_cast<size_t>(to)] = mine;
    traffic_.small_bytes += mine.size();
  }
  timed([&] { do_all_to_all(send, receive); });
}

void Communicator::await_broadcast(int from, std::span<std::byte> bytes) {
  struct Patience {  // also where it throws
    std::chrono::seconds& now;
    const std::chrono::seconds before = std::exchange(now, std::chrono::hours(24 * 365));
    ~Patience() { now = before; }
  } patience{patience_};
  broadcast(from, bytes);
}

void Communicator::barrier() {
  timed([&] { do_all_gather({}); });
}

std::string broadcast_text(Communicator& ranks, int from, const std::string& text) {
  uint64_t size = text.size();
  ranks.broadcast(from, std::as_writable_bytes(std::span(&size, 1)));
  std::string all = ranks.rank() == from ? text : std::string(size, '\0');
  ranks.broadcast(from, std::as_writable_bytes(std::span(all)));
  return all;
}

void agree(Communicator& ranks, const std::string& what, const std::string& mine) {
  const std::vector<std::vector<std::byte>> all = ranks.all_gather(std::as_bytes(std::span(mine)));
  const auto said = [&](size_t r) {
    return printable({reinterpret_cast<const char*>(all[r].data()), all[r].size()}, 200);
  };
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    fail("rank {} and rank 0 do not agree on {} ({}, and {}); start all ranks with the same files and flags", r, what,
         said(r), said(0));
  }
}

}  // namespace contexture
