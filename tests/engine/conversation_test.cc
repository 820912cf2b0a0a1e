#include "engine/conversation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "cache/layout.h"
#include "engine/generate.h"
#include "engine/runtime.h"
#include "engine/scheduler.h"
#include "support/letter_model.h"
#include "support/random_model.h"

namespace contexture {
namespace {

using testing::HasSubstr;

/// Forgets what the assistant said but for its length, as templates do that strip thoughts.
const std::string kRewriting =
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ 'x' * (m.content | length % 3 + 1) if m.role == 'assistant' else m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// A model opened for a conversation.
struct Chat {
  TemporaryFile path;
  OpenedModel opened;
  Runtime runtime;
  ChatTemplate chat_template;
  CachedConversation conversation;

  explicit Chat(size_t context = 400, const std::string& source = kLetterTemplate, uint32_t seed = 1,
                bool says_all = false, std::string_view layout = "paged")
      : opened(write_and_open(path.path(), source, seed, says_all)),
        runtime(opened.file, options(context, layout)),
        chat_template(ChatTemplate::choose(opened.file.metadata, opened.tokenizer->vocabulary())),
        conversation(runtime, *opened.tokenizer, chat_template) {}

  static OpenedModel write_and_open(const std::string& path, const std::string& source, uint32_t seed, bool says_all) {
    write_letter_model(path, source, seed, says_all);
    return open_with_tokenizer(path);
  }
  static RunOptions options(size_t context, std::string_view layout) {
    RunOptions options;
    options.cache.layout = layout;
    options.cache.context = context;
    options.cache.options = own_options(layout, {{"hot_tokens", 16}});
    options.threads = 2;
    options.chunk = 16;
    return options;
  }
  Generation say(const std::string& text, size_t tokens = 6) {
    return conversation.say(text, {.max_tokens = tokens, .sampling = {.temperature = 0}, .ignore_end = true});
  }
  /// The answer to the conversation up to its last user message, in a runtime that has seen nothing.
  std::vector<TokenId> fresh_answer(size_t tokens = 6) {
    return fresh_answer({.max_tokens = tokens, .sampling = {.temperature = 0}, .ignore_end = true});
  }
  std::vector<TokenId> fresh_answer(const GenerateOptions& generate_options) {
    std::vector<ChatMessage> messages = conversation.messages();
    messages.pop_back();
    Runtime other(opened.file, options(runtime.plan().cache.context, runtime.plan().cache.layout));
    const std::vector<TokenId> prompt = chat_template.encode(*opened.tokenizer, chat_template.render(messages));
    return generate(other, *opened.tokenizer, {.prompt = prompt, .options = generate_options}).token_ids;
  }
};

TEST(Conversation, ATurnCostsItsNewTokensAndChangesNothing) {
  Chat chat;
  chat.conversation.set_messages({{"system", "be kind"}});
  Generation made = chat.say("hello you");
  EXPECT_EQ(made.prompt_tokens, made.prefilled_tokens) << "nothing is held at first";
  EXPECT_EQ(made.prefilled_tokens, 1u + 9 + 11 + 1) << "<s>, the system message, the user's, <|assistant|>";
  EXPECT_EQ(made.token_ids, chat.fresh_answer());
  for (const std::string text : {"and then", "why so"}) {
    made = chat.say(text);
    // The last letter of the answer (which nobody asked the model about), its end, the message between its two tokens,
    // and the beginning of the new answer.
    EXPECT_EQ(made.prefilled_tokens, 1 + 1 + (text.size() + 2) + 1) << text;
    EXPECT_GT(made.prompt_tokens, made.prefilled_tokens);
    EXPECT_EQ(made.token_ids, chat.fresh_answer()) << text;
  }
  ASSERT_EQ(chat.conversation.messages().size(), 7u);
  EXPECT_EQ(chat.conversation.messages()[5], (ChatMessage{"user", "why so"}));
  EXPECT_EQ(chat.conversation.messages()[6], (ChatMessage{"assistant", made.text}));
  EXPECT_EQ(chat.conversation.context_tokens(), made.prompt_tokens + made.token_ids.size() - 1);
}

TEST(Conversation, TokensOfAnAnswerStayAsTheyWere) {
  // Models that say control tokens and unknown ones, which their text does not show.
  for (uint32_t seed = 1; seed < 8; ++seed) {
    Chat chat(400, kLetterTemplate, seed, /*says_all=*/true);
    chat.say("hello", 20);
    EXPECT_EQ(chat.say("more", 20).prefilled_tokens, 1u + 1 + 6 + 1) << "seed " << seed;
  }
}

TEST(Conversation, TemplatesThatRewriteHistoryLoseOnlyWhatTheyRewrite) {
  Chat chat(400, kRewriting);
  chat.say("hello you and all the others");
  const Generation second = chat.say("and then");
  EXPECT_EQ(second.token_ids, chat.fresh_answer());
  EXPECT_LT(second.prefilled_tokens, second.prompt_tokens);
  EXPECT_GE(second.prompt_tokens - second.prefilled_tokens, 30u) << "the first question is held";
  // <s><|user|>, 28 letters, <|end|><|assistant|>: then an x stands where the answer's first letter stood.
  ASSERT_TRUE(second.prefix.first_difference);
  EXPECT_EQ(second.prefix.first_difference->position, 32u);
  EXPECT_EQ(second.prefix.first_difference->given_text, "x");
  EXPECT_EQ(second.prefix.first_difference->held_text, chat.conversation.messages()[1].content.substr(0, 1));
}

TEST(Conversation, AMixedCacheRunsAgainWhatItNoLongerHolds) {
  Chat chat(800, kLetterTemplate, 1, false, "mixed");
  chat.say(std::string(600, 'a'));
  chat.conversation.set_messages({});
  const Generation made = chat.say(std::string(250, 'a') + "b");  // of 252 equal tokens the ring has lost the hot ones
  EXPECT_EQ(made.prefix.reused_tokens, 4u) << "the sinks";
  EXPECT_EQ(made.prefix.lost_tokens, 248u);
  EXPECT_EQ(made.prefilled_tokens, made.prompt_tokens - 4);
  EXPECT_EQ(made.prefix.first_difference.value().position, 252u);
  EXPECT_EQ(made.token_ids, chat.fresh_answer());
  EXPECT_LT(chat.say("more").prefilled_tokens, 12u) << "and then goes on as always";
}

TEST(Conversation, CancelledAnswersStay) {
  Chat chat;
  chat.say("hello you");
  int tokens = 0;
  const Generation cut = chat.conversation.say(
      "and then", {.max_tokens = 50, .sampling = {.temperature = 0}, .ignore_end = true},
      {.on_token = [&](const GeneratedToken&) { return ++tokens < 3; }, .on_prefill = {}, .cancelled = nullptr});
  EXPECT_EQ(cut.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(chat.conversation.messages().back(), (ChatMessage{"assistant", cut.text}));
  EXPECT_EQ(cut.text.size(), 3u);
  const Generation after = chat.say("why so");
  EXPECT_EQ(after.token_ids, chat.fresh_answer());
}

TEST(Conversation, WhatWasCancelledBeforeAWordLeavesNoTrace) {
  Chat chat;
  chat.say("hello you");
  const std::vector<ChatMessage> before = chat.conversation.messages();
  std::atomic<bool> cancelled{false};
  size_t chunks = 0;
  const Generation none = chat.conversation.say(
      std::string(100, 'a'), {.max_tokens = 5, .sampling = {.temperature = 0}, .ignore_end = true},
      {.on_token = {},
       .on_prefill = [&](size_t, size_t) { cancelled = ++chunks == 2; },  // in the middle of the message
       .cancelled = &cancelled});
  EXPECT_EQ(none.finish_reason, FinishReason::cancelled);
  EXPECT_EQ(chat.conversation.messages(), before);
  const Generation after = chat.say("and then");
  EXPECT_EQ(after.token_ids, chat.fresh_answer()) << "the cache holds nothing half done";
}

TEST(Conversation, OldTurnsGoWhereTheContextIsFull) {
  Chat chat(/*context=*/100);
  chat.conversation.set_messages({{"system", "be kind"}});
  size_t dropped = 0;
  for (int turn = 0; turn < 12; ++turn) {
    const Generation made = chat.say("some more words");
    dropped += chat.conversation.dropped_turns();
    EXPECT_EQ(made.token_ids.size(), 6u) << "there is always room for an answer";
    EXPECT_EQ(made.token_ids, chat.fresh_answer());
    EXPECT_EQ(chat.conversation.messages()[0].content, "be kind");
    EXPECT_EQ(chat.conversation.messages()[1].role, "user");
  }
  EXPECT_GE(dropped, 6u);
  EXPECT_EQ(chat.conversation.messages().size(), 1 + 2 * (12 - dropped));
  const std::vector<ChatMessage> before = chat.conversation.messages();
  try {
    chat.say(std::string(95, 'a'));
    ADD_FAILURE() << "it does not fit";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::too_long);
    EXPECT_THAT(error.what(), HasSubstr("100"));
  }
  EXPECT_EQ(chat.conversation.messages(), before);
  EXPECT_EQ(chat.say("words").token_ids.size(), 6u);
}

TEST(Conversation, WhatWasCancelledBeforeAWordDroppedNoTurns) {
  Chat chat(/*context=*/100);
  for (int turn = 0; turn < 3; ++turn) chat.say("some more words");
  const std::vector<ChatMessage> before = chat.conversation.messages();
  const std::atomic<bool> cancelled{true};
  chat.conversation.say(std::string(40, 'a'), {.max_tokens = 6, .sampling = {.temperature = 0}, .ignore_end = true},
                        {.on_token = {}, .on_prefill = {}, .cancelled = &cancelled});
  EXPECT_EQ(chat.conversation.messages(), before);
  EXPECT_EQ(chat.conversation.dropped_turns(), 0u);
  chat.say(std::string(40, 'a'));
  EXPECT_GT(chat.conversation.dropped_turns(), 0u) << "it would have dropped some";
}

TEST(Conversation, EveryTurnHasASeedOfItsOwn) {
  Chat chat(/*context=*/100);
  GenerateOptions options{.max_tokens = 6, .sampling = {.temperature = 1, .top_k = 3, .seed = 7}, .ignore_end = true};
  size_t dropped = 0;
  for (uint64_t turn = 0; turn < 10; ++turn) {
    options.sampling.seed = 7;
    const Generation made = chat.conversation.say("some more words", options);
    dropped += chat.conversation.dropped_turns();
    options.sampling.seed = 7 + turn;
    EXPECT_EQ(made.token_ids, chat.fresh_answer(options)) << "turn " << turn;
  }
  EXPECT_GT(dropped, 0u);
  // A conversation that goes on elsewhere draws as it would have here.
  const std::vector<ChatMessage> messages = {{"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}};
  chat.conversation.set_messages(messages);
  options.sampling.seed = 7;
  const Generation made = chat.conversation.say("more", options);
  options.sampling.seed = 9;
  EXPECT_EQ(made.token_ids, chat.fresh_answer(options));
}

TEST(Conversation, ASavedOneGoesOnWithItsOwnTokens) {
  Chat here(400), there(400);
  GenerateOptions options{.max_tokens = 6, .sampling = {.temperature = 2, .seed = 7}, .ignore_end = true};
  here.conversation.say("hello", options);
  here.conversation.say("and then", options);
  SavedConversation saved = here.conversation.saved();
  EXPECT_EQ(saved.turns, 2u);
  EXPECT_FALSE(saved.token_ids.empty());
  SavedConversation edited = saved;
  there.conversation.restore(saved);
  EXPECT_EQ(there.conversation.say("why", options).token_ids, here.conversation.say("why", options).token_ids);
  EXPECT_EQ(there.conversation.saved().token_ids, here.conversation.saved().token_ids);
  edited.messages.back().content = "something else";
  there.conversation.restore(edited);
  EXPECT_TRUE(there.conversation.saved().token_ids.empty()) << "tokens of another text are of no use";
  edited = saved;
  edited.token_ids.push_back(1 << 30);
  there.conversation.restore(edited);
  EXPECT_TRUE(there.conversation.saved().token_ids.empty());
}

TEST(Conversation, FormatsWithoutAnEndTokenEndWithTheNextQuestion) {
  Chat chat(400, "{% for m in messages %}{{ m.role }} {{ m.content }} {% endfor %}assistant");
  const TurnEnd end = chat.chat_template.turn_end(*chat.opened.tokenizer);
  EXPECT_EQ(end.text, " user");
  chat.say("hello");
  const Generation after = chat.say("more");
  EXPECT_EQ(after.token_ids, chat.fresh_answer());
}

}  // namespace
}  // namespace contexture
