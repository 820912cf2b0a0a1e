#include <gtest/gtest.h>

#include <fstream>
#include <random>
#include <thread>

#include "api/engines.h"
#include "base/error.h"

namespace contexture {
namespace {

TEST_F(Engines, SessionsAreKeptForkedCutAndSaved) {
  Engine engine(*model_, options(2));
  Request request = ask(random_tokens(40));
  request.session = engine.session();
  request.limits = {.max_tokens = 10, .ignore_end = true};
  request.sampling.temperature = 0;
  const Generation first = generate(engine, request);
  std::vector<int32_t> all = std::get<TokenPrompt>(request.prompt).tokens;
  all.insert(all.end(), first.token_ids.begin(), first.token_ids.end());
  std::vector<int32_t> held = all;
  held.pop_back();  // the last token was made and not run
  EXPECT_EQ(request.session->tokens(), held);

  const TemporaryFile saved{".session"};
  request.session->save(saved.path());
  const std::shared_ptr<Session> branch = request.session->fork();
  branch->truncate(30);
  EXPECT_EQ(branch->tokens().size(), 30u);
  EXPECT_THROW(branch->truncate(31), Error);

  Request more = request;
  more.prompt = TokenPrompt{all};
  const Generation second = generate(engine, more);
  EXPECT_EQ(second.prefilled_tokens, 1u);
  Engine other(*model_, options(1));
  more.session = other.load_session(saved.path());
  EXPECT_EQ(more.session->tokens(), held);
  const Generation resumed = generate(other, more);
  EXPECT_EQ(resumed.prefilled_tokens, 1u);
  expect_same(resumed, second);
  more.session = branch;
  const Generation branched = generate(engine, more);
  expect_same(branched, second);
  std::ofstream(saved.path(), std::ios::app) << "x";
  try {
    other.load_session(saved.path());
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::damaged);
  }
}

/// More sessions than sequences: those that are idle make room, and lose nothing.
TEST_F(Engines, IdleSessionsMakeRoom) {
  for (const std::string layout : {"paged", "contiguous", "mixed"}) {
    EngineOptions small = options(2);
    small.cache.layout = layout;
    Engine engine(*model_, small);
    std::vector<Request> requests(5);
    for (Request& r : requests) {
      r = ask(random_tokens(50));
      r.session = engine.session();
      r.limits = {.max_tokens = 6, .ignore_end = true};
    }
    for (int turn = 0; turn < 3; ++turn) {
      for (Request& r : requests) {
        Engine fresh(*model_, small);
        Request alone = r;
        alone.session = nullptr;
        const Generation made = generate(engine, r);
        expect_same(made, generate(fresh, alone));
        auto& tokens = std::get<TokenPrompt>(r.prompt).tokens;
        tokens.insert(tokens.end(), made.token_ids.begin(), made.token_ids.end());
      }
    }
  }
}

/// What goes wrong in a request that goes on in a session leaves what was there before.
TEST_F(Engines, AFailedRequestLeavesItsSessionWhatItHad) {
  Engine engine(*model_, options(2)), quiet(*model_, options(1));
  Request request = ask(random_tokens(40));
  request.session = engine.session();
  request.limits = {.max_tokens = 6, .ignore_end = true};
  (void)generate(engine, request);
  const std::vector<int32_t> before = request.session->tokens();
  ASSERT_EQ(before.size(), 45u);
  Request bad = request;
  std::vector<int32_t> tokens = before;
  tokens.resize(42);
  const std::vector<int32_t> common = tokens;
  tokens.push_back((before[42] + 1) % kDamaged);
  tokens.push_back(kDamaged);
  bad.prompt = TokenPrompt{tokens};
  EXPECT_THROW(generate(engine, bad), Error);
  EXPECT_EQ(request.session->tokens(), common) << "what follows the first difference is forgotten, as ever";
  request.prompt = TokenPrompt{common};
  const Generation made = generate(engine, request);
  request.session = nullptr;
  expect_same(made, generate(quiet, request));
}

TEST_F(Engines, SessionsOfAnotherEngineAreRefused) {
  Engine engine(*model_, options(1)), other(*model_, options(1));
  Request request = ask(random_tokens(10));
  request.session = engine.session();
  EXPECT_THROW(other.submit(request), Error);
  request.limits = {.max_tokens = 2, .ignore_end = true};
  EXPECT_EQ(generate(engine, request).token_ids.size(), 2u);
}

/// Members called from many threads, and requests beside them: each is done whole, or refused as a conflict.
TEST_F(Engines, ASessionIsForManyThreads) {
  Engine engine(*model_, options(3));
  Request request = ask(random_tokens(60));
  request.session = engine.session();
  request.limits = {.max_tokens = 5, .ignore_end = true};
  (void)generate(engine, request);
  const std::vector<int32_t> held = request.session->tokens();
  const uint32_t seed = static_cast<uint32_t>(random_());
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 6; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      const TemporaryFile file{".session"};
      for (int round = 0; round < 20;) {
        const uint32_t action = random() % 4;
        try {
          switch (action) {
            case 0:
              EXPECT_EQ(request.session->tokens(), held);
              break;
            case 1:
              EXPECT_EQ(request.session->fork()->tokens(), held);
              break;
            case 2:
              request.session->save(file.path());
              EXPECT_EQ(engine.load_session(file.path())->tokens(), held);
              break;
            default:
              (void)generate(engine, request);
          }
          ++round;
        } catch (const Error& error) {
          // The session is at work for another: this round is tried again.
          ASSERT_TRUE(error.kind() == ErrorKind::conflict || error.kind() == ErrorKind::busy) << error.what();
          std::this_thread::yield();
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

/// A session's rows that had to make room are run again to be saved, under the namespace and rotation that it had; and
/// one that is loaded makes room where others are idle.
TEST_F(Engines, SessionsAreSavedAndLoadedWhereThereIsLittleRoom) {
  for (const std::string layout : {"paged", "contiguous", "mixed"}) {
    EngineOptions small = options(1, 100);
    small.cache.layout = layout;
    Engine engine(*model_, small);
    Request request = ask(random_tokens(60));
    request.limits = {.max_tokens = 5, .ignore_end = true};
    request.name_space = "mine";
    request.session = engine.session();
    (void)generate(engine, request);
    const std::vector<int32_t> held = request.session->tokens();
    Request other = ask(random_tokens(80));
    other.session = engine.session();
    (void)generate(engine, other);  // takes the room
    const TemporaryFile file{".session"};
    request.session->save(file.path());
    const std::shared_ptr<Session> loaded = engine.load_session(file.path());
    EXPECT_EQ(loaded->tokens(), held);
    // What was run again is still this namespace's alone.
    Request stranger = request;
    stranger.session = nullptr;
    stranger.name_space = "another";
    EXPECT_EQ(generate(engine, stranger).prefix.reused_tokens, 0u);
    Request guest = request;
    guest.name_space = "a third";
    auto& tokens = std::get<TokenPrompt>(guest.prompt).tokens;
    tokens[30] = (tokens[30] + 1) % kDamaged;
    EXPECT_FALSE(generate(engine, guest).prefix.first_difference) << "its text is not told to others";
  }
}

/// What waits in a session holds no room against what runs or came first.
TEST_F(Engines, ASessionThatWaitsMakesRoom) {
  for (const size_t sequences : {1, 4}) {
    EngineOptions small = options(sequences, 150);
    small.cache.layout_options = {{"page_tokens", "8"}, {"pool_tokens", "160"}};
    Engine engine(*model_, small);
    Request in_session = ask(random_tokens(64)), first = ask(random_tokens(20));
    in_session.session = engine.session();
    in_session.limits.max_tokens = 1;
    (void)generate(engine, in_session);
    auto& tokens = std::get<TokenPrompt>(in_session.prompt).tokens;
    const std::vector<int32_t> more = random_tokens(30);
    tokens.insert(tokens.end(), more.begin(), more.end());
    first.limits = {.max_tokens = 120, .ignore_end = true};
    Stream runs = engine.submit(first), waits = engine.submit(in_session);
    const Generation made = runs.wait();
    EXPECT_EQ(made.finish_reason, FinishReason::length);
    EXPECT_EQ(made.token_ids.size(), 120u);
    in_session.session = nullptr;
    Engine quiet(*model_, small);
    expect_same(waits.wait(), generate(quiet, in_session));
  }
}

/// While a session is saved its rows make no room: who needs it waits until then.
TEST_F(Engines, WhoeverNeedsTheRoomOfASessionThatIsSavedWaits) {
  EngineOptions small = options(1, 100);
  Engine engine(*model_, small), quiet(*model_, small);
  Request in_session = ask(random_tokens(60)), other = ask(random_tokens(60));
  in_session.session = engine.session();
  (void)generate(engine, in_session);
  other.limits = {.max_tokens = 30, .ignore_end = true};
  const Generation expected = generate(quiet, other);
  std::atomic<bool> done{false};
  std::thread saver([&] {
    const TemporaryFile file{".session"};
    for (int i = 0; i < 20; ++i) in_session.session->save(file.path());
    done = true;
  });
  size_t asked = 0;
  while (!done || asked == 0) {
    expect_same(generate(engine, other), expected);
    ++asked;
  }
  saver.join();
}

TEST_F(Engines, ACancelledRequestTakesNothingFromItsSession) {
  Engine engine(*model_, options(1, 2000));
  Request request = ask(random_tokens(1000));
  request.session = engine.session();
  request.limits.max_tokens = 1;
  (void)generate(engine, request);
  const std::vector<int32_t> held = request.session->tokens();
  ASSERT_EQ(held.size(), 1000u);
  (void)generate(engine, ask(random_tokens(1500)));  // takes the room
  request.prompt = TokenPrompt{held};
  Stream stream = engine.submit(request);
  (void)stream.next();
  stream.cancel();
  (void)stream.wait();
  EXPECT_EQ(request.session->tokens(), held);
}

TEST_F(Engines, ALoadedSessionIsOfOneNamespace) {
  Engine engine(*model_, options(2));
  Request request = ask(random_tokens(60));
  request.session = engine.session();
  request.name_space = "mine";
  request.limits = {.max_tokens = 3, .ignore_end = true};
  (void)generate(engine, request);
  const TemporaryFile file{".session"};
  request.session->save(file.path());
  Engine other(*model_, options(2));
  request.session = other.load_session(file.path(), "mine");
  EXPECT_EQ(generate(other, request).prefilled_tokens, 1u);
  Request stranger = request;
  stranger.session = nullptr;
  stranger.name_space = {};
  EXPECT_EQ(generate(other, stranger).prefix.reused_tokens, 0u);
}

}  // namespace
}  // namespace contexture
