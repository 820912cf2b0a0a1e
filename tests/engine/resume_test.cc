// A text that is cut and gone on with is the text that was never cut: tokens, their probabilities' bits, what is shown.

#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "engine/scheduler.h"
#include "engine/session.h"
#include "engine/shown_text.h"
#include "support/random.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

/// A text as it comes out of one run or several.
struct Text {
  std::vector<int32_t> ids;
  std::vector<float> log_probabilities;
  std::string shown;
  FinishReason ended = FinishReason::length;
};

/// `run --session`, without its files' checks of the model. Tokens are single bytes, so that a random text is full of
/// characters that are cut, and of bytes that are none.
class ResumeTest : public testing::Test {
 protected:
  ResumeTest() {
    write_random_model({.vocabulary = 259, .seed = static_cast<uint32_t>(fresh_random()())}, model_.path(),
                       /*with_vocabulary=*/true);
    opened_.emplace(open_with_tokenizer(model_.path(), ""));
    std::filesystem::remove(session_.path());
  }

  /// Goes on from the session, or begins it.
  void run(Text& text, GenerateOptions options, size_t tokens) {
    options.max_tokens = tokens;
    options.resumable = true;
    const Tokenizer& tokenizer = opened_->need_tokenizer();
    std::optional<MappedFile> map;
    std::optional<SessionFile> session;
    std::vector<TokenId> prompt = tokenizer.encode("ab\xe2\x82");  // the prompt itself ends within a character
    if (std::filesystem::exists(session_.path())) {
      map.emplace(session_.path());
      session = read_session(map->bytes(), session_.path());
      prompt = go_on(session->state, tokenizer, /*has_seed=*/true, options);
    }
    RunOptions cache;
    cache.cache.layout = "paged";
    cache.cache.context = 200;
    cache.cache.resumable = true;
    cache.threads = 1;
    Runtime runtime(opened_->file, cache);
    const OwnedSequence sequence(runtime.cache());
    const Digest identity{1, 2};
    if (session) restore_session(*session, runtime.cache(), runtime.plan(), sequence.id(), identity);
    (void)runtime.cache().truncate(sequence.id(), std::min(runtime.cache().length(sequence.id()), prompt.size() - 1));
    std::string streamed;
    GenerationCallbacks callbacks;
    callbacks.on_token = [&](const GeneratedToken& token) { return streamed += token.text, true; };
    const Generation made =
        generate_in(runtime, tokenizer, sequence.id(), {.prompt = prompt, .options = options, .callbacks = callbacks});
    EXPECT_EQ(streamed, made.text);
    text.ids.insert(text.ids.end(), made.token_ids.begin(), made.token_ids.end());
    text.log_probabilities.insert(text.log_probabilities.end(), made.log_probabilities.begin(),
                                  made.log_probabilities.end());
    text.shown += made.text;
    text.ended = made.finish_reason;
    save_session(session_.path(), runtime, sequence.id(), state_after(prompt, options, made, 200), 0, identity, "m");
  }

  Text in_parts(const GenerateOptions& options, std::initializer_list<size_t> parts) {
    std::filesystem::remove(session_.path());
    Text text;
    for (const size_t tokens : parts) run(text, options, tokens);
    return text;
  }

  static void expect_equal(const Text& got, const Text& want) {
    EXPECT_EQ(got.ids, want.ids);
    EXPECT_EQ(got.log_probabilities, want.log_probabilities);
    EXPECT_EQ(got.shown, want.shown);
    EXPECT_EQ(got.ended, want.ended);
  }

  TemporaryFile model_, session_{".session"};
  std::optional<OpenedModel> opened_;
};

constexpr size_t kTokens = kSanitized ? 12 : 72;  // beyond the repetition penalty's window

TEST_F(ResumeTest, CutAtAnyTokenItGoesOnAsIfItHadNeverStopped) {
  for (const bool greedy : {false, true}) {
    GenerateOptions options{
        .sampling = {.temperature = greedy ? 0.f : 1.f, .top_k = 0, .repeat_penalty = 1.4f, .seed = 5}};
    options.ignore_end = true;
    const Text free = in_parts(options, {kTokens});
    // Stop texts that seem to begin all the time, and never come.
    for (size_t at = 0; at + 3 < free.shown.size(); at += 2) options.stop.push_back(free.shown.substr(at, 2) + "\xff");
    const Text whole = in_parts(options, {kTokens});
    EXPECT_EQ(whole.ids, free.ids);
    for (size_t cut = 0; cut <= kTokens; ++cut) {
      SCOPED_TRACE(cut);
      expect_equal(in_parts(options, {cut, kTokens - cut}), whole);
      if (cut + 5 < kTokens) expect_equal(in_parts(options, {cut, 1, 2, 0, kTokens - cut - 3}), whole);
    }
  }
}

TEST_F(ResumeTest, AStopTextThatIsCutEndsItWhereItWouldHaveEnded) {
  GenerateOptions options{.sampling = {.temperature = 1, .top_k = 0, .seed = 6}};
  options.ignore_end = true;
  const Text free = in_parts(options, {kTokens});
  for (size_t at = 4; at + 6 < free.shown.size() / 2; at += 3) {
    options.stop = {free.shown.substr(at, 6)};
    const Text whole = in_parts(options, {kTokens});
    ASSERT_EQ(whole.ended, FinishReason::stop);
    for (size_t cut = 0; cut < whole.ids.size(); ++cut) {
      SCOPED_TRACE(cut);
      expect_equal(in_parts(options, {cut, kTokens - cut}), whole);
    }
  }
}

TEST_F(ResumeTest, AfterAStopTextItGoesOnFromWhatWasShown) {
  GenerateOptions options{.sampling = {.temperature = 1, .top_k = 0, .repeat_penalty = 1.4f, .seed = 7}};
  options.ignore_end = true;
  const Text free = in_parts(options, {kTokens});
  for (size_t at = 1; at + 2 < free.shown.size() / 2; ++at) {
    std::filesystem::remove(session_.path());
    Text text;
    options.stop = {free.shown.substr(at, 2)};
    run(text, options, kTokens);
    ASSERT_EQ(text.ended, FinishReason::stop);
    const MappedFile map(session_.path());
    const SessionFile session = read_session(map.bytes(), session_.path());
    const Tokenizer& tokenizer = opened_->need_tokenizer();
    // Where no character was cut, tokens are bytes, and nothing is left of a token: it goes on as if never stopped.
    if (!session.state.cut_text.empty()) continue;
    options.stop = {};
    const size_t kept = session.state.tokens.size() - tokenizer.encode("ab\xe2\x82").size();
    text.ids.resize(kept);
    text.log_probabilities.resize(kept);
    run(text, options, kTokens - kept);
    expect_equal(text, free);
  }
}

TEST_F(ResumeTest, AnEndStaysTheEnd) {
  GenerateOptions options{.sampling = {.temperature = 1, .top_k = 0, .seed = 1}};
  Text whole;
  do {  // until an end token is drawn
    ++options.sampling.seed;
    whole = in_parts(options, {150});
    ASSERT_LT(options.sampling.seed, 500u);
  } while (whole.ended != FinishReason::end || whole.ids.size() < 2);
  for (const size_t cut : {size_t{1}, whole.ids.size() / 2, whole.ids.size()}) {
    expect_equal(in_parts(options, {cut, 150}), whole);
  }
}

/// A vocabulary of words, so that a stop text cuts tokens in two.
Tokenizer words() {
  Vocabulary v;
  v.algorithm = Vocabulary::Algorithm::sentencepiece_bpe;
  v.pieces = {"<unk>", "<s>", "</s>"};
  v.types = {PieceType::unknown, PieceType::control, PieceType::control};
  v.unknown = 0;
  for (const char* piece : {"\u2581", "\u2581the", "\u2581cat", "s", "\u2581sat", "t", "h", "e", "c", "a", "."}) {
    v.pieces.emplace_back(piece);
    v.types.push_back(PieceType::normal);
  }
  for (int byte = 0; byte < 256; ++byte) {
    v.pieces.push_back(fmt::format("<0x{:02X}>", byte));
    v.types.push_back(PieceType::byte);
  }
  v.scores.assign(v.pieces.size(), 0);
  v.begin = 1;
  v.end = 2;
  v.end_tokens = {2};
  v.add_space_prefix = true;
  return Tokenizer(std::move(v));
}

class ShownTextTest : public testing::Test {
 protected:
  TokenId id(const std::string& piece) const {
    const auto& pieces = tokenizer_.vocabulary().pieces;
    return static_cast<TokenId>(std::find(pieces.begin(), pieces.end(), piece) - pieces.begin());
  }
  std::vector<TokenId> ids(const std::vector<std::string>& pieces) const {
    std::vector<TokenId> all;
    for (const std::string& piece : pieces) all.push_back(id(piece));
    return all;
  }
  const Tokenizer tokenizer_ = words();
};

TEST_F(ShownTextTest, IsCutAfterTheLastTokenThatWasShownWhole) {
  const std::vector<TokenId> prompt = ids({"<s>", "\u2581the"});
  const auto cut = [&](const std::vector<std::string>& pieces, const std::string& stop) {
    ShownText text(tokenizer_, prompt, {stop}, {});
    std::string shown;
    for (const TokenId token : ids(pieces)) shown += text.push(token);
    EXPECT_TRUE(text.stopped());
    const ShownText::Cut c = text.cut();
    EXPECT_EQ(tokenizer_.decode(ids({"<s>", "\u2581the", "\u2581cat", "s", "\u2581sat"})).substr(0, 3 + shown.size()),
              "the" + shown);
    return std::pair(c.tokens, c.text);
  };
  EXPECT_EQ(cut({"\u2581cat", "s", "\u2581sat"}, " sat"), (std::pair<size_t, std::string>(4, "")));
  EXPECT_EQ(cut({"\u2581cat", "s", "\u2581sat"}, "at"), (std::pair<size_t, std::string>(2, " c")));
  EXPECT_EQ(cut({"\u2581cat", "s", "\u2581sat"}, "ts sa"), (std::pair<size_t, std::string>(2, " ca")));
  EXPECT_EQ(cut({"\u2581cat", "s", "\u2581sat"}, " cat"), (std::pair<size_t, std::string>(2, "")));
  EXPECT_EQ(cut({"\u2581cat", "s", "\u2581sat"}, "s sat"), (std::pair<size_t, std::string>(3, "")));
}

TEST_F(ShownTextTest, WhatAStopTextHeldBackMayBeOfTokensOfAnEarlierRun) {
  ShownText first(tokenizer_, ids({"<s>"}), {"ts sat"}, {});
  EXPECT_EQ(first.push(id("\u2581the")), "the");
  EXPECT_EQ(first.push(id("\u2581cat")), " ca");
  EXPECT_EQ(first.cut().tokens, 2u);
  EXPECT_EQ(first.cut().text, " ca");
  const Resume from{.draws = 2, .open_tokens = 1, .shown_bytes = 3};
  const std::vector<TokenId> so_far = ids({"<s>", "\u2581the", "\u2581cat"});
  ShownText second(tokenizer_, so_far, {"ts sat"}, from);
  EXPECT_EQ(second.push(id("s")), "");
  EXPECT_EQ(second.push(id("\u2581sat")), "");
  ASSERT_TRUE(second.stopped());
  EXPECT_EQ(second.cut().tokens, 2u) << "the prompt's last token was not shown whole";
  EXPECT_EQ(second.cut().text, " ca");
  ShownText other(tokenizer_, so_far, {}, from);
  EXPECT_EQ(other.cut().text, " ca") << "until more is shown";
  EXPECT_EQ(other.push(id("s")), "ts") << "with no stop text any more";
  EXPECT_EQ(other.cut().tokens, 4u);
  const Resume wrong[] = {
      {.open_tokens = 1, .shown_bytes = 5}, {.open_tokens = 9, .shown_bytes = 99}, {.shown_bytes = 1}};
  for (const Resume& resume : wrong) EXPECT_THROW(ShownText(tokenizer_, so_far, {}, resume), Error);
}

TEST_F(ShownTextTest, TextThatGoesOnGetsNoSpaceInFront) {
  EXPECT_EQ(tokenizer_.encode("sat", {.add_begin = false, .goes_on = true})[0], id("s"));
  EXPECT_EQ(tokenizer_.bytes(tokenizer_.encode("sat", {.add_begin = false})[0]).front(), ' ');
}

}  // namespace
}  // namespace contexture
