#include "base/log.h"

#include <gtest/gtest.h>

#include <atomic>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace contexture {
namespace {

struct Heard {
  LogLevel level;
  std::string message;
  bool operator==(const Heard&) const = default;
};

/// Logs go here while it lives.
struct Listener {
  std::vector<Heard> heard;

  Listener() {
    set_log([this](LogLevel level, std::string_view message) { heard.push_back({level, std::string(message)}); });
  }
  ~Listener() {
    set_log({});
    set_log_level(LogLevel::warning);
  }
};

TEST(Log, GoesToTheHostAndNowhereElse) {
  testing::internal::CaptureStdout();
  testing::internal::CaptureStderr();
  {
    Listener listener;
    log_info("not made");
    log_warning("{} of {}", 1, 2);
    set_log_level(LogLevel::debug);
    log_debug("made");
    EXPECT_EQ(listener.heard, (std::vector<Heard>{{LogLevel::warning, "1 of 2"}, {LogLevel::debug, "made"}}));
  }
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "");
  testing::internal::CaptureStderr();
  log_info("not made");
  log_warning("{} are left", 3);
  EXPECT_EQ(testing::internal::GetCapturedStderr(), "warning: 3 are left\n");
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "");
}

TEST(Log, OneThreadMayAskForMore) {
  Listener listener;
  {
    const MoreTalkative info(LogLevel::info);
    {
      const MoreTalkative quiet(LogLevel::warning);
      log_info("still");
    }
    EXPECT_FALSE(logs(LogLevel::debug));
    bool elsewhere = true;
    std::thread([&] { elsewhere = logs(LogLevel::info); }).join();
    EXPECT_FALSE(elsewhere);
  }
  log_info("no longer");
  EXPECT_EQ(listener.heard, (std::vector<Heard>{{LogLevel::info, "still"}}));
}

TEST(Log, WhatAListenerDoesWrongIsPassedOver) {
  int calls = 0;
  set_log([&](LogLevel, std::string_view) {
    ++calls;
    set_log([&](LogLevel, std::string_view) { calls += 10; });  // and it may change who listens
    throw std::runtime_error("no");
  });
  log_warning("one");
  log_warning("two");
  set_log({});
  EXPECT_EQ(calls, 11);
}

TEST(Log, ThreadsMayLogWhileListenersChange) {
  std::atomic<int> heard = 0;
  std::vector<std::thread> threads;
  set_log([&](LogLevel, std::string_view) { ++heard; });
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([] {
      for (int i = 0; i < 1000; ++i) log_warning("{}", i);
    });
  }
  for (int i = 0; i < 100; ++i) set_log([&](LogLevel, std::string_view) { ++heard; });
  for (std::thread& thread : threads) thread.join();
  set_log({});
  EXPECT_EQ(heard, 4000);
}

}  // namespace
}  // namespace contexture
