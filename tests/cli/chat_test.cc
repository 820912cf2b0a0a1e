#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"
#include "cli/terminal.h"
#include "support/letter_model.h"
#include "support/random_model.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::Not;

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

class Chat : public testing::Test {
 protected:
  void SetUp() override { write_letter_model(model_.path(), kLetterTemplate); }
  /// Greedy answers of six letters or spaces.
  Ended chat(const std::string& input, const std::string& flags = {}) const {
    return run_program("chat -t 1 -n 6 --temp 0 --ignore-eos -m " + model_.path() + " " + flags, input);
  }
  TemporaryFile model_;
};

TEST_F(Chat, OneTurnALineAndOnlyAnswersOnStdout) {
  const Ended ended = chat("hello\nand then\n\nwhy\n");
  ASSERT_EQ(ended.status, 0) << ended.err;
  const std::vector<std::string> answers = lines_of(ended.out);
  ASSERT_EQ(answers.size(), 3u) << ended.out;
  for (const std::string& answer : answers) {
    EXPECT_LE(answer.size(), 6u);
    EXPECT_EQ(answer.find_first_not_of("abcdefghijklmnopqrstuvwxyz "), answer.npos) << answer;
  }
  EXPECT_THAT(ended.err, Not(HasSubstr("> ")));
  EXPECT_EQ(chat("hello\nand then\nwhy").out, ended.out) << "the last line needs no newline";
  EXPECT_EQ(lines_of(chat("hello\nwhy\n").out)[0], answers[0]);
  EXPECT_NE(lines_of(chat("hello\n", "--system 'be kind'").out)[0], answers[0]) << "the system message is read";
  EXPECT_EQ(chat("").out, "");
}

TEST_F(Chat, ATurnCostsItsNewTokensOnly) {
  const Ended ended = chat("hello\nand then\nwhy\n", "-v");
  // The answer's last letter and its end, <|user|>, the text, <|end|>, <|assistant|>: 5 and the text; the 6 of the
  // answer are what the whole grows by besides.
  EXPECT_THAT(ended.err, HasSubstr("9 of 9 prompt tokens were new"));
  EXPECT_THAT(ended.err, HasSubstr("13 of 27 prompt tokens were new"));
  EXPECT_THAT(ended.err, HasSubstr("8 of 40 prompt tokens were new"));
}

TEST_F(Chat, ResetBeginsAnew) {
  const std::vector<std::string> answers = lines_of(chat("hello\nand then\n/reset\nhello\n", "--system 'be kind'").out);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[2], answers[0]);
}

TEST_F(Chat, SessionsAreSavedAndGoOn) {
  const TemporaryFile session(".json"), copy(".json");
  const std::vector<std::string> whole = lines_of(chat("hello\nand then\n", "--system kind").out);
  const Ended first = chat("hello\n/save\n/save " + copy.path() + "\n", "--system kind --session " + session.path());
  EXPECT_THAT(first.err, HasSubstr("saved to " + session.path()));
  std::ifstream file(session.path());
  const json saved = json::parse(file);
  EXPECT_EQ(saved, json::parse(std::ifstream(copy.path())));
  EXPECT_EQ(saved, (json{{"messages",
                          {{{"role", "system"}, {"content", "kind"}},
                           {{"role", "user"}, {"content", "hello"}},
                           {{"role", "assistant"}, {"content", whole[0]}}}}}));
  EXPECT_EQ(chat("and then\n", "--session " + session.path()).out, whole[1] + "\n");
  const Ended other = chat("and then\n/save\n", "--system gruff --session " + session.path());
  EXPECT_NE(other.out, whole[1] + "\n");
  const json changed = json::parse(std::ifstream(session.path()));
  EXPECT_EQ(changed["messages"].size(), 5u);
  EXPECT_EQ(changed["messages"][0]["content"], "gruff");
  EXPECT_THAT(chat("/save\n").err, HasSubstr("/save FILE"));
  EXPECT_THAT(chat("/save /nowhere/x.json\n").err, HasSubstr("error: "));
}

TEST_F(Chat, SessionsFromStrangersGetOneLine) {
  const TemporaryFile session(".json");
  for (const char* content :
       {"", "{", "[]", "{\"messages\": 1}", "{\"messages\": [1]}", "{\"messages\": [{\"role\": \"user\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": 5}]}",
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"system\", \"content\": \"b\"}]}"}) {
    std::ofstream(session.path()) << content;
    const Ended ended = chat("hello\n", "--session " + session.path());
    EXPECT_EQ(ended.status, 1) << content;
    EXPECT_EQ(ended.out, "") << content;
    EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
    EXPECT_THAT(ended.err, HasSubstr(session.path()));
  }
}

TEST_F(Chat, MessagesOfSeveralLines) {
  const TemporaryFile session(".json");
  chat("one\\\ntwo\n\"\"\"three\n\nfour\n\"\"\"\n\"\"\"five\"\"\"\n/save " + session.path() + "\n");
  const json saved = json::parse(std::ifstream(session.path()));
  ASSERT_EQ(saved["messages"].size(), 6u);
  EXPECT_EQ(saved["messages"][0]["content"], "one\ntwo");
  EXPECT_EQ(saved["messages"][2]["content"], "three\n\nfour\n");
  EXPECT_EQ(saved["messages"][4]["content"], "five");
}

TEST_F(Chat, CommandsAnswerOnStderr) {
  const Ended ended = chat("hello\n/info\n/help\n/nonsense\n/quit\nnever\n", "-c 99");
  EXPECT_EQ(ended.status, 0);
  EXPECT_EQ(lines_of(ended.out).size(), 1u) << "nothing comes after /quit";
  EXPECT_THAT(ended.err, HasSubstr("14 of 99 tokens"));
  EXPECT_THAT(ended.err, HasSubstr("turns    1"));
  EXPECT_THAT(ended.err, HasSubstr("/reset"));
  EXPECT_THAT(ended.err, HasSubstr("no command /nonsense"));
}

TEST_F(Chat, TheOldestTurnsGoWhereTheContextIsFull) {
  std::string input;
  for (int i = 0; i < 8; ++i) input += "some words\n";
  const Ended ended = chat(input + "/info\n", "-c 64");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(lines_of(ended.out).size(), 8u);
  EXPECT_THAT(ended.err, HasSubstr("turns are forgotten"));
  const Ended longer = chat(std::string(100, 'a') + "\n", "-c 64");
  EXPECT_EQ(longer.status, 1);
  EXPECT_THAT(longer.err, HasSubstr("64"));
}

TEST_F(Chat, FormatsByName) {
  const TemporaryFile bare;
  write_letter_model(bare.path(), "");
  const Ended none = run_program("chat -m " + bare.path(), "hello\n");
  EXPECT_EQ(none.status, 1);
  EXPECT_THAT(none.err, HasSubstr("--chat-format"));
  EXPECT_EQ(run_program("chat -t 1 -n 4 --chat-format plain -m " + bare.path(), "hello\n").status, 0);
  EXPECT_EQ(run_program("chat --chat-format nope -m " + bare.path(), "hello\n").status, 2);
}

TEST_F(Chat, InATerminal) {
  Terminal terminal({"chat", "-t", "1", "-n", "6", "--temp", "0", "--ignore-eos", "-m", model_.path()});
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("hello\r");
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("and\\\r");
  ASSERT_TRUE(terminal.wait_for(". "));
  terminal.type("then\r");
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("/info\r");
  ASSERT_TRUE(terminal.wait_for("turns    2"));
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("\x04");
  EXPECT_EQ(terminal.status(), 0);
}

TEST_F(Chat, CtrlCAtThePromptEndsIt) {
  Terminal terminal({"chat", "-m", model_.path()});
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("\x03");
  EXPECT_EQ(terminal.status(), 130);
}

TEST(ChatWithASlowModel, CtrlCStopsTheAnswerAndKeepsTheConversation) {
  const TemporaryFile model, session(".json");  // slow enough that 3,000 tokens take seconds
  write_random_model({.dim = 256, .layers = 8, .heads = 8, .kv_heads = 8, .ffn_dim = 1024, .vocabulary = 259},
                     model.path(), /*with_vocabulary=*/true);
  Terminal terminal(
      {"chat", "-m", model.path(), "-n", "3000", "--ignore-eos", "--chat-format", "chatml", "--stop", "never said"});
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("hello\r");
  ASSERT_TRUE(terminal.wait_for_anything());
  terminal.type("\x03");
  ASSERT_TRUE(terminal.wait_for("> "));
  terminal.type("/save " + session.path() + "\r");
  ASSERT_TRUE(terminal.wait_for("saved"));
  terminal.type("\x04");
  EXPECT_EQ(terminal.status(), 0) << "a stopped answer is no failure";
  const json saved = json::parse(std::ifstream(session.path()));
  ASSERT_EQ(saved["messages"].size(), 2u);
  EXPECT_EQ(saved["messages"][0]["content"], "hello");
  EXPECT_NE(saved["messages"][1]["content"], "");
}

TEST(ChatWithTheBundledModel, ThreeTurns) {
  const Ended ended = run_program("chat --chat-format plain -n 12 -s 1", "Hello.\nTell me a story.\nThank you.\n");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_GE(lines_of(ended.out).size(), 3u);
}

TEST(ChatWithTheBundledModel, RemembersOverTurns) {
  const Ended ended = run_program("chat --temp 0",
                                  "Tom hid the red lamp in the barn. Where is the red lamp?\n"
                                  "Ann put the blue ball in the box. Where is the blue ball?\n"
                                  "Where is the red lamp?\n");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_THAT(lines_of(ended.out), testing::ElementsAre("It is in the barn.", "It is in the box.", "It is in the barn."));
}

// What a shell would offer after these words.
std::string offered(const std::string& words) {
  const TemporaryFile script(".sh"), out(".out");
  std::ofstream(script.path()) << run_program("completion bash").out << "COMP_WORDS=(" << words
                               << ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_contexture\necho \"${COMPREPLY[@]}\"\n";
  EXPECT_EQ(std::system(("bash " + script.path() + " >" + out.path() + " 2>&1").c_str()), 0);
  std::ifstream file(out.path());
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(Completion, KnowsSubcommandsOptionsChoicesAndFiles) {
  EXPECT_EQ(offered("contexture ch"), "chat\n");
  EXPECT_THAT(offered("contexture ''"), HasSubstr("tokenize"));
  EXPECT_EQ(offered("contexture chat --sess"), "--session\n");
  EXPECT_EQ(offered("contexture -v run --ignore"), "--ignore-eos\n");
  EXPECT_THAT(offered("contexture chat --chat-format mis"), HasSubstr("mistral-nemo"));
  EXPECT_EQ(offered("contexture run --k-format b"), "bf16\n");
  EXPECT_EQ(offered("contexture run -m models/stories-1m.gg"), "models/stories-1m.gguf\n");
  EXPECT_EQ(offered("contexture run -n 5"), "\n") << "a number is anybody's guess";
  EXPECT_EQ(offered("contexture completion z"), "zsh\n");
  EXPECT_THAT(run_program("completion zsh").out, HasSubstr("bashcompinit"));
  EXPECT_EQ(run_program("completion tcsh").status, 2);
}

}  // namespace
}  // namespace contexture
