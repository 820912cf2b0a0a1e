#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cstring>
#include <thread>

#include "backends/ring/local_communicator.h"
#include "base/error.h"

namespace contexture {
namespace {

using testing::HasSubstr;
using testing::ThrowsMessage;

std::vector<std::byte> bytes_of_text(const std::string& text) {
  const auto bytes = std::as_bytes(std::span(text));
  return {bytes.begin(), bytes.end()};
}

TEST(LocalRanks, PassAroundTheRing) {
  for (const int n : {1, 2, 3, 8}) {
    run_local_ranks(n, [&](Communicator& ranks) {
      // Rank r has r + 1 bytes; after n - 1 exchanges all have been everywhere.
      std::vector<std::byte> here(static_cast<size_t>(ranks.rank()) + 1, static_cast<std::byte>(ranks.rank()));
      uint64_t sent = 0;
      for (int step = 1; step < n; ++step) {
        const int source = (ranks.rank() - step + n) % n;
        std::vector<std::byte> arriving(static_cast<size_t>(source) + 1, std::byte{0xff});
        ranks.start_exchange(here, arriving);
        ranks.progress();
        ranks.finish_exchange();
        sent += here.size();
        EXPECT_EQ(arriving, std::vector<std::byte>(static_cast<size_t>(source) + 1, static_cast<std::byte>(source)));
        here = arriving;
      }
      EXPECT_EQ(ranks.traffic().ring_bytes, sent);
    });
  }
}

TEST(LocalRanks, GatherScatterAndTell) {
  for (const int n : {1, 2, 3, 8}) {
    run_local_ranks(n, [&](Communicator& ranks) {
      const size_t me = static_cast<size_t>(ranks.rank());
      const auto all = ranks.all_gather(bytes_of_text(std::string(me, 'a')));
      ASSERT_EQ(all.size(), static_cast<size_t>(n));
      for (size_t r = 0; r < all.size(); ++r) EXPECT_EQ(all[r], bytes_of_text(std::string(r, 'a')));

      // From r to s: r + s bytes of value 16 · r + s.
      std::vector<std::vector<std::byte>> out, in;
      std::vector<std::span<const std::byte>> send;
      std::vector<std::span<std::byte>> receive;
      uint64_t bytes = 0;
      for (size_t r = 0; r < static_cast<size_t>(n); ++r) {
        out.emplace_back(me + r, static_cast<std::byte>(16 * me + r));
        in.emplace_back(me + r, std::byte{0xff});
        if (r != me) bytes += me + r;
      }
      for (auto& o : out) send.emplace_back(o);
      for (auto& i : in) receive.emplace_back(i);
      ranks.all_to_all(send, receive);
      for (size_t r = 0; r < in.size(); ++r) {
        const std::byte expected = r == me ? std::byte{0xff} : static_cast<std::byte>(16 * r + me);
        EXPECT_EQ(in[r], std::vector<std::byte>(me + r, expected));
      }
      EXPECT_EQ(ranks.traffic().all_to_all_bytes, bytes);
      EXPECT_EQ(broadcast_text(ranks, n - 1, me == static_cast<size_t>(n) - 1 ? "seven" : ""), "seven");
      ranks.barrier();
    });
  }
}

TEST(LocalRanks, OneThatFailsEndsAll) {
  for (const int failing : {0, 2}) {
    std::atomic<int> ended{0};
    EXPECT_THAT(
        [&] {
          run_local_ranks(4, [&](Communicator& ranks) {
            struct Count {
              std::atomic<int>& ended;
              ~Count() { ++ended; }
            } const count{ended};
            for (int i = 0;; ++i) {
              if (i == 3 && ranks.rank() == failing) fail("rank {} has burnt down", failing);
              std::vector<std::byte> here(100), arriving(100);
              ranks.start_exchange(here, arriving);
              ranks.finish_exchange();
              ranks.barrier();
            }
          });
        },
        ThrowsMessage<Error>("rank " + std::to_string(failing) + " has burnt down"));
    EXPECT_EQ(ended, 4);
  }
}

TEST(LocalRanks, ThoseWhoDisagreeAreTold) {
  EXPECT_THAT(
      [] {
        run_local_ranks(3, [](Communicator& ranks) {
          agree(ranks, "the model", "same");
          agree(ranks, "the length", ranks.rank() == 1 ? "9" : "8");
        });
      },
      ThrowsMessage<Error>(HasSubstr("rank 1 and rank 0 do not agree on the length (9, and 8)")));
  EXPECT_THAT(
      [] {
        run_local_ranks(2, [](Communicator& ranks) {
          std::vector<std::byte> here(10), arriving(ranks.rank() == 0 ? 10 : 12);
          ranks.start_exchange(here, arriving);
          ranks.finish_exchange();
        });
      },
      ThrowsMessage<Error>(HasSubstr("rank 0 gives 10 bytes where 12 are expected")));
}

TEST(LocalRanks, NobodyWaitsForEver) {
  EXPECT_THAT(
      [] {
        run_local_ranks(
            2,
            [](Communicator& ranks) {
              if (ranks.rank() == 1) ranks.barrier();
            },
            std::chrono::seconds(1));
      },
      ThrowsMessage<Error>(HasSubstr("waited 1 s for another")));
}

}  // namespace
}  // namespace contexture
