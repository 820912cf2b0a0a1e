#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <thread>

#include "api/engines.h"
#include "base/error.h"
#include "support/allocations.h"
#include "support/letter_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using testing::HasSubstr;
using namespace std::chrono_literals;

TEST_F(Engines, EventsComeInOrderAndSayAllThatIsMade) {
  Engine engine(*model_, options(2));
  Request request = ask(random_tokens(100));
  request.alternatives = 3;
  request.limits = {.max_tokens = 20, .ignore_end = true};
  Stream stream = engine.submit(request);
  std::vector<int32_t> ids;
  std::string text;
  size_t prefilled = 0;
  std::optional<Generation> made;
  for (const Event& event : stream) {
    ASSERT_FALSE(made) << "nothing comes after the last";
    if (const auto* prefill = std::get_if<PrefillEvent>(&event)) {
      EXPECT_GT(prefill->done, prefilled);
      EXPECT_EQ(prefill->total, 100u);
      EXPECT_TRUE(ids.empty());
      prefilled = prefill->done;
    } else if (const auto* token = std::get_if<TokenEvent>(&event)) {
      text += token->text;
      if (token->id < 0) continue;
      ids.push_back(token->id);
      ASSERT_EQ(token->alternatives.size(), 3u);
      EXPECT_GE(token->alternatives[0].log_probability, token->alternatives[1].log_probability);
      EXPECT_GE(token->alternatives[0].log_probability, token->log_probability);
      for (const Alternative& a : token->alternatives) {
        if (a.id != token->id) continue;
        EXPECT_EQ(a.log_probability, token->log_probability);
      }
    } else {
      made = std::get<FinishedEvent>(event).generation;
    }
  }
  ASSERT_TRUE(made);
  EXPECT_EQ(prefilled, 100u);
  EXPECT_EQ(ids, made->token_ids);
  EXPECT_EQ(text, made->text);
  EXPECT_TRUE(stream.ended());
  EXPECT_FALSE(stream.next());
  EXPECT_EQ(stream.wait().token_ids, ids) << "the end can be asked for again";
  Statistics statistics = engine.statistics();
  while (statistics.running > 0) statistics = engine.statistics();  // it is told after the step
  EXPECT_EQ(statistics.generated_tokens, 20u);
  EXPECT_EQ(statistics.prompt_tokens, 100u);
}

TEST_F(Engines, CallbacksGetTheSameEventsOneAfterTheOther) {
  Engine engine(*model_, options(3));
  struct Heard {
    std::vector<int32_t> ids;
    int last = 0;
    std::atomic<bool> inside{false};
  };
  std::vector<Request> requests;
  for (size_t i = 0; i < 6; ++i) requests.push_back(random_request(60, 20));
  std::vector<Heard> heard(requests.size());
  std::vector<Stream> streams;
  for (size_t i = 0; i < requests.size(); ++i) {
    streams.push_back(engine.submit(requests[i], [&h = heard[i]](const Event& event) {
      EXPECT_FALSE(h.inside.exchange(true));
      if (const auto* token = std::get_if<TokenEvent>(&event); token && token->id >= 0) h.ids.push_back(token->id);
      h.last += std::holds_alternative<FinishedEvent>(event);
      h.inside = false;
    }));
  }
  for (size_t i = 0; i < requests.size(); ++i) {
    const Generation made = streams[i].wait();
    EXPECT_EQ(heard[i].ids, made.token_ids);
    EXPECT_EQ(heard[i].last, 1);
    expect_same(made, generate(engine, requests[i]));
  }
}

TEST_F(Engines, WhatGoesWrongWithOneReachesNobodyElse) {
  Engine engine(*model_, options(4)), quiet(*model_, options(1));
  std::vector<Request> good;
  for (size_t i = 0; i < 4; ++i) good.push_back(random_request(80, 40));
  std::vector<int32_t> bad_tokens = random_tokens(60);
  for (Request& r : good) std::get<TokenPrompt>(r.prompt).tokens[0] = 1;  // what two begin with is held for both
  bad_tokens[0] = 2;
  bad_tokens[50] = kDamaged;
  std::vector<Stream> streams;
  streams.push_back(engine.submit(good[0]));
  Stream damaged = engine.submit({.prompt = TokenPrompt{bad_tokens}});
  streams.push_back(engine.submit(good[1]));
  Request long_one = ask(random_tokens(20));
  std::get<TokenPrompt>(long_one.prompt).tokens[0] = 1;
  long_one.limits = {.max_tokens = 150, .ignore_end = true};
  Stream thrower = engine.submit(long_one, [](const Event&) { throw std::runtime_error("mine"); });
  streams.push_back(engine.submit(good[2]));
  Stream cancelled = engine.submit(long_one);
  cancelled.cancel();
  streams.push_back(engine.submit(good[3]));
  try {
    damaged.wait();
    FAIL() << "its numbers overflow";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::internal);
    EXPECT_THAT(error.what(), HasSubstr("not numbers"));
  }
  EXPECT_THROW(thrower.wait(), Error);
  EXPECT_EQ(cancelled.wait().finish_reason, FinishReason::cancelled);
  for (size_t i = 0; i < good.size(); ++i) expect_same(streams[i].wait(), generate(quiet, good[i]));
  // The damaged text has left nothing: not even what came before the damage.
  bad_tokens.resize(50);
  Request before = ask(bad_tokens);
  before.limits.max_tokens = 5;
  const Generation made = generate(engine, before);
  EXPECT_EQ(made.prefix.reused_tokens, 0u);
  expect_same(made, generate(quiet, before));
}

TEST_F(Engines, ErrorsTellWhoseFaultTheyAre) {
  EngineOptions few = options(1, 4000);
  few.waiting = 2;
  Engine engine(*model_, few);
  const auto kind_of = [&](const Request& request) -> std::optional<ErrorKind> {
    try {
      Stream stream = engine.submit(request);
      stream.wait();
    } catch (const Error& error) {
      return error.kind();
    }
    return std::nullopt;
  };
  EXPECT_EQ(kind_of({.prompt = TokenPrompt{random_tokens(4001)}}), ErrorKind::too_long);
  EXPECT_EQ(kind_of({.prompt = TokenPrompt{}}), ErrorKind::invalid);
  EXPECT_EQ(kind_of({.prompt = TokenPrompt{{1}}, .resume = {.draws = UINT64_MAX}}), ErrorKind::invalid);
  EXPECT_EQ(kind_of({.prompt = ChatPrompt{.messages = "[{]"}}), ErrorKind::invalid);
  Request slow = ask(random_tokens(20));
  slow.limits = {.max_tokens = 3900, .ignore_end = true};
  slow.session = engine.session();
  std::vector<Stream> streams;
  streams.push_back(engine.submit(slow));
  EXPECT_EQ(kind_of(slow), ErrorKind::conflict);
  slow.session = nullptr;
  bool was_busy = false;
  for (int i = 0; i < 50 && !was_busy; ++i) {
    try {
      streams.push_back(engine.submit(slow));
    } catch (const Error& error) {
      was_busy = error.kind() == ErrorKind::busy;
    }
  }
  EXPECT_TRUE(was_busy);
  engine.close();
  EXPECT_EQ(kind_of(slow), ErrorKind::closed);
  for (Stream& stream : streams) {
    try {
      stream.wait();
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::closed);
    }
  }
}

TEST_F(Engines, WaitsEndWhenTheCallerSaysSo) {
  Engine engine(*model_, options(1, 4000));
  Request request = ask(random_tokens(2000));
  request.limits = {.max_tokens = 1000, .ignore_end = true};
  Stream first = engine.submit(request), second = engine.submit(request);
  EXPECT_FALSE(second.wait(0ms));
  EXPECT_FALSE(second.next(0ms));
  EXPECT_FALSE(second.ended());
  first.cancel();
  second.cancel();
  EXPECT_TRUE(second.wait(60s));
}

TEST_F(Engines, TextsAreScoredAndEmbeddedWhateverRunsBesideThem) {
  Engine engine(*model_, options(3));
  const std::vector<int32_t> text = random_tokens(70);
  Request busy = random_request(100, 60);
  Stream beside = engine.submit(busy);
  const std::vector<float> scores = engine.score(TokenPrompt{text}, 1).get();
  ASSERT_EQ(scores.size(), 69u);
  const std::vector<float> late = engine.score(TokenPrompt{text}, 50).get();
  EXPECT_TRUE(std::equal(late.begin(), late.end(), scores.begin() + 49));
  // What the model says of its own next token is what scoring says of it.
  Request next = ask({text.begin(), text.begin() + 40});
  next.limits = {.max_tokens = 1, .ignore_end = true};
  const Generation made = generate(engine, next);
  std::vector<int32_t> with = {text.begin(), text.begin() + 40};
  with.push_back(made.token_ids.at(0));
  EXPECT_EQ(engine.score(TokenPrompt{with}, 40).get().at(0), made.log_probabilities.at(0));

  for (const Pooling pooling : {Pooling::mean, Pooling::last}) {
    const std::vector<float> one = engine.embed(TokenPrompt{text}, pooling).get();
    ASSERT_EQ(one.size(), model_->facts().hidden);
    double squares = 0;
    for (const float x : one) squares += static_cast<double>(x) * static_cast<double>(x);
    EXPECT_NEAR(squares, 1, 1e-5);
    EngineOptions other_steps = options(1);
    other_steps.step_tokens = 7;
    Engine alone(*model_, other_steps);
    EXPECT_EQ(alone.embed(TokenPrompt{text}, pooling).get(), one) << "to the bit";
  }
  EXPECT_THROW(engine.score(TokenPrompt{text}, 70), Error);
  EXPECT_THROW(engine.embed(TokenPrompt{{1, kDamaged}}).get(), Error);
  beside.wait();
}

/// A text that wants a row of logits for every token came first, and holds up nobody.
TEST_F(Engines, AScoredTextHoldsUpNoYoungerOne) {
  EngineOptions small = options(2, 4000);
  small.step_tokens = 64;
  Engine engine(*model_, small);
  std::future<std::vector<float>> scores = engine.score(TokenPrompt{random_tokens(3900)});
  Request quick = ask(random_tokens(10));
  quick.limits = {.max_tokens = 20, .ignore_end = true};
  EXPECT_EQ(engine.submit(quick).wait().token_ids.size(), 20u);
  EXPECT_EQ(scores.wait_for(0s), std::future_status::timeout) << "some hundred steps of 33 rows";
  EXPECT_EQ(scores.get().size(), 3899u);
}

TEST_F(Engines, ReadingsCanBeCancelledAndHaveNamespaces) {
  Engine engine(*model_, options(1, 4000));
  const auto cancelled = std::make_shared<std::atomic<bool>>(false);
  const std::vector<int32_t> text = random_tokens(3900);
  std::future<std::vector<float>> scores = engine.score(TokenPrompt{text}, 1, {.cancelled = cancelled});
  *cancelled = true;
  try {
    scores.get();
    FAIL() << "it was cancelled";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::cancelled);
  }
  Request request = ask({text.begin(), text.begin() + 60});
  request.limits.max_tokens = 1;
  request.name_space = "a";
  // Statistics follow the step.
  uint64_t steps = engine.statistics().steps;
  const auto reused_after = [&] {
    Statistics statistics = engine.statistics();
    for (; statistics.steps == steps || statistics.running > 0; statistics = engine.statistics()) {
      std::this_thread::sleep_for(1ms);
    }
    steps = statistics.steps;
    return statistics.reused_tokens;
  };
  (void)generate(engine, request);
  EXPECT_EQ(reused_after(), 0u);
  const auto reused = [&](const std::string& name_space) {
    const uint64_t before = engine.statistics().reused_tokens;
    engine.score(TokenPrompt{{text.begin(), text.begin() + 60}}, 59, {.name_space = name_space}).get();
    return reused_after() - before;
  };
  EXPECT_EQ(reused("b"), 0u);
  EXPECT_GT(reused("a"), 0u);
}

TEST_F(Engines, SoManyRequestsMayBeThereAtOnce) {
  EngineOptions few = options(1, 4000);
  few.waiting = 0;
  Engine engine(*model_, few);
  Request request = ask(random_tokens(100));
  request.limits = {.max_tokens = 3900, .ignore_end = true};
  for (int round = 0; round < 3; ++round) {
    Stream stream = engine.submit(request);
    EXPECT_THROW(engine.submit(request), Error);
    EXPECT_THROW(engine.embed(request.prompt), Error);
    stream.cancel();
    stream.wait();  // from here on there is room for another
    EXPECT_EQ(engine.score(request.prompt, 99).get().size(), 1u);
  }
}

TEST_F(Engines, MayBeClosedByAnyAndDestroyedInACallback) {
  Request request = ask(random_tokens(50));
  request.limits = {.max_tokens = 3900, .ignore_end = true};
  {
    Engine engine(*model_, options(2, 4000));
    Stream stream = engine.submit(request);
    std::vector<std::thread> threads;
    for (int i = 0; i < 3; ++i) threads.emplace_back([&] { engine.close(); });
    for (std::thread& thread : threads) thread.join();
    EXPECT_THROW(engine.submit(request), Error);
    EXPECT_THROW(stream.wait(), Error);
  }
  auto engine = std::make_unique<Engine>(*model_, options(2, 4000));
  std::promise<ErrorKind> last;
  std::promise<void> submitted;
  std::shared_future<void> is_submitted = submitted.get_future();
  Stream stream = engine->submit(request, [&, is_submitted](const Event& event) {
    is_submitted.wait();
    engine.reset();
    if (const auto* failed = std::get_if<FailedEvent>(&event)) last.set_value(failed->kind);
  });
  submitted.set_value();
  EXPECT_EQ(last.get_future().get(), ErrorKind::closed);
  EXPECT_THROW(stream.wait(), Error);
}

TEST_F(Engines, AModelIsThereOnceAndPlannedExactly) {
  if (!kWatchesAllocations) GTEST_SKIP() << "allocations cannot be watched in this build";
  const Plan plan = model_->plan(options(2));
  EXPECT_EQ(plan.weights_bytes, model_->facts().weights_bytes);
  const AllocationWatch watch;
  std::vector<std::unique_ptr<Engine>> engines;
  for (int i = 0; i < 3; ++i) engines.push_back(std::make_unique<Engine>(*model_, options(2)));
  const size_t planned = 3 * (plan.total_bytes() - plan.weights_bytes);
  EXPECT_GE(watch.peak(), planned);
  EXPECT_LE(watch.peak(), planned + 3 * 65536) << "no engine has weights of its own";
  EngineOptions bounded = options(2, 0);
  bounded.memory = plan.total_bytes();
  const Plan fitting = model_->plan(bounded);
  EXPECT_LE(fitting.total_bytes(), plan.total_bytes());
  EXPECT_GE(fitting.context, 200u);
}

/// Many more requests than run at once, in a pool of a tenth of what they ask for.
TEST_F(Engines, AStormIsWhatEachIsAlone) {
  const size_t requests = kSanitized ? 150 : 10'000, kinds = kSanitized ? 10 : 60;
  EngineOptions small = options(16, 120);
  small.waiting = requests;
  small.cache.layout_options = {{"page_tokens", "8"}, {"pool_tokens", std::to_string(16 * 120 / 10)}};
  small.swap_bytes = size_t{1} << 20;
  Engine engine(*model_, small), quiet(*model_, options(1, 120));
  std::vector<Request> all;
  std::vector<Generation> expected;
  for (size_t i = 0; i < kinds; ++i) {
    all.push_back(random_request(80, 30));
    expected.push_back(generate(quiet, all.back()));
  }
  std::vector<std::pair<size_t, Stream>> streams;
  for (size_t i = 0; i < requests; ++i) {
    const size_t kind = random_() % kinds;
    streams.emplace_back(kind, engine.submit(all[kind]));
  }
  for (auto& [kind, stream] : streams) {
    const Generation made = stream.wait();
    ASSERT_EQ(made.token_ids, expected[kind].token_ids);
    ASSERT_EQ(made.log_probabilities, expected[kind].log_probabilities) << "to the bit";
    ASSERT_EQ(made.finish_reason, expected[kind].finish_reason);
  }
  (void)engine.session();  // statistics are told after the step, and this is done after that
  EXPECT_TRUE(kSanitized || engine.statistics().preemptions > 0);
  EXPECT_EQ(engine.statistics().waiting, 0u);
  // What is planned is there: another storm takes what its requests hold, and what may be swapped.
  streams.clear();
  const AllocationWatch watch;
  constexpr size_t kMore = 64, kOfARequest = 16 << 10;
  for (size_t i = 0; i < kMore; ++i) streams.emplace_back(i % kinds, engine.submit(all[i % kinds]));
  for (auto& [kind, stream] : streams) EXPECT_EQ(stream.wait().token_ids, expected[kind].token_ids);
  EXPECT_TRUE(!kWatchesAllocations || watch.peak() <= small.swap_bytes + kMore * kOfARequest) << watch.peak();
}

/// Submitted, cancelled, watched and forgotten by sixteen threads.
TEST_F(Engines, ManyThreadsFeedCancelAndWatch) {
  EngineOptions small = options(4, 100);
  small.cache.layout_options = {{"page_tokens", "8"}, {"pool_tokens", "160"}};
  Engine engine(*model_, small), quiet(*model_, options(1, 100));
  std::vector<Request> all;
  std::vector<Generation> expected;
  for (size_t i = 0; i < 8; ++i) {
    all.push_back(random_request(60, 12));
    expected.push_back(generate(quiet, all.back()));
  }
  const uint32_t seed = static_cast<uint32_t>(random_());
  std::vector<std::thread> threads;
  for (uint32_t t = 0; t < 16; ++t) {
    threads.emplace_back([&, t] {
      std::mt19937 random(seed + t);
      for (int round = 0; round < (kSanitized ? 4 : 30); ++round) {
        const size_t kind = random() % all.size();
        std::atomic<size_t> heard{0};
        const auto listen = [&heard](const Event&) { ++heard; };
        Stream stream = random() % 3 == 0 ? engine.submit(all[kind], listen) : engine.submit(all[kind]);
        switch (random() % 4) {
          case 0:
            stream.cancel();
            (void)stream.wait();
            break;
          case 1:
            (void)stream.next(1ms);
            stream.cancel();
            (void)stream.wait();
            break;
          default:
            expect_same(stream.wait(), expected[kind]);
        }
        (void)engine.statistics();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  (void)engine.session();
  EXPECT_EQ(engine.statistics().waiting, 0u);
}

/// A short prompt does not wait for a long one's end.
TEST_F(Engines, AShortPromptGetsItsPartBesideALongOne) {
  EngineOptions small = options(2, 4000);
  small.step_tokens = 64;
  Engine engine(*model_, small);
  Request long_one = ask(random_tokens(3900)), short_one = ask(random_tokens(10));
  long_one.limits.max_tokens = 1;
  short_one.limits = {.max_tokens = 2, .ignore_end = true};
  Stream waits = engine.submit(long_one);
  ASSERT_TRUE(waits.next());
  Stream quick = engine.submit(short_one);
  quick.wait();
  size_t done = 0;
  while (const std::optional<Event> event = waits.next(0ms)) {
    if (const auto* prefill = std::get_if<PrefillEvent>(&*event)) done = prefill->done;
  }
  EXPECT_LT(done, 3900u);
  waits.wait();
}

TEST(Conversations, OverOneEngineShareTheModel) {
  const TemporaryFile path;
  write_letter_model(path.path(), kLetterTemplate, 1, false);
  Engine engine(Model::open(path.path(), {.threads = 1}), {.context = 400, .sequences = 2, .threads = 1});
  const Limits limits{.max_tokens = 6, .ignore_end = true};
  const Sampling greedy{.temperature = 0};
  Conversation conversation(engine, {.system = "be kind"}), other(engine);
  std::string streamed;
  const Generation first = conversation.say("hello", greedy, limits, [&](const GeneratedToken& t) {
    streamed += t.text;
    return true;
  });
  EXPECT_EQ(streamed, first.text);
  EXPECT_FALSE(other.say("something else", greedy, limits).text.empty());
  const Generation second = conversation.say("more", greedy, limits);
  EXPECT_LT(second.prefilled_tokens, second.prompt_tokens);
  EXPECT_EQ(conversation.messages().size(), 5u);
  const Generation cut = conversation.say("and", greedy, limits, [&](const GeneratedToken&) { return false; });
  EXPECT_EQ(cut.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(cut.token_ids.size(), 1u);
  EXPECT_EQ(conversation.messages().back().content, cut.text);
  const size_t before = conversation.messages().size();
  const auto thrower = [](const GeneratedToken&) -> bool { throw std::runtime_error("mine"); };
  EXPECT_THROW(conversation.say("thrown", greedy, limits, thrower), std::runtime_error);
  EXPECT_EQ(conversation.messages().size(), before) << "as if it had not been said";
  EXPECT_FALSE(conversation.say("and so", greedy, limits).text.empty());
  Conversation moved = std::move(conversation);
  EXPECT_EQ(moved.messages().size(), before + 2);
  EXPECT_THROW(Conversation(engine, {.chat_format = "nope"}), Error);
}

TEST(Models, RenderMessagesOfAnyShapeIntoSegments) {
  const TemporaryFile path;
  write_letter_model(path.path(),
                     "{% for m in messages %}<|{{ m.role }}|>{% if m.content is string %}{{ m.content }}{% else %}"
                     "{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}<|end|>{% endfor %}"
                     "{% if tools %}{{ tools | tojson }}{% endif %}{% if mood %}({{ mood }}){% endif %}",
                     1, false);
  const Model model = Model::open(path.path());
  ChatPrompt prompt{.messages = R"([{"role":"user","content":[{"type":"text","text":"a <|end|> b"}]}])",
                    .tools = R"([{"name":"x"}])",
                    .variables = R"({"mood":"good"})"};
  std::string all;
  for (const Segment& segment : model.render(prompt)) {
    all += segment.text;
    if (segment.text.find("a <|end|> b") == std::string::npos) continue;
    EXPECT_TRUE(segment.content);
  }
  EXPECT_THAT(all, HasSubstr("<|user|>a <|end|> b<|end|>"));
  EXPECT_THAT(all, HasSubstr("{\"name\": \"x\"}"));
  EXPECT_THAT(all, HasSubstr("(good)"));
  prompt.variables = R"({"messages":[]})";
  EXPECT_THROW(model.render(prompt), Error);
  prompt.variables = "[1]";
  EXPECT_THROW(model.render(prompt), Error);
  prompt = {.messages = R"({"role":"user"})"};
  EXPECT_THROW(model.render(prompt), Error);
}

TEST(Machines, HaveMemoryAndCores) {
  const MachineFacts facts = machine_facts();
  EXPECT_GE(facts.physical_cores, 1);
  EXPECT_GT(facts.memory_bytes, size_t{1} << 26);
  EXPECT_LE(facts.available_bytes, facts.memory_bytes);
  EXPECT_FALSE(facts.instructions.empty());
}

}  // namespace
}  // namespace contexture
