#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>

#include "cli/command.h"
#include "cli/program.h"
#include "cli/terminal.h"
#include "files/gguf_writer.h"
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
  EXPECT_EQ(saved["messages"], (json{{{"role", "system"}, {"content", "kind"}},
                                     {{"role", "user"}, {"content", "hello"}},
                                     {{"role", "assistant"}, {"content", whole[0]}}}));
  EXPECT_EQ(chat("and then\n", "--session " + session.path()).out, whole[1] + "\n");
  const Ended other = chat("and then\n/save\n", "--system gruff --session " + session.path());
  EXPECT_NE(other.out, whole[1] + "\n");
  const json changed = json::parse(std::ifstream(session.path()));
  EXPECT_EQ(changed["messages"].size(), 5u);
  EXPECT_EQ(changed["messages"][0]["content"], "gruff");
  EXPECT_THAT(chat("/save\n").err, HasSubstr("/save FILE"));
  EXPECT_THAT(chat("/save /nowhere/x.json\n").err, HasSubstr("error: "));
}

/// Answers that are drawn, more than the context holds: what was forgotten counts too.
TEST_F(Chat, ASessionGoesOnAsIfItHadNeverStopped) {
  const std::string flags = " chat -t 1 -n 6 --temp 2 -c 64 --ignore-eos -m " + model_.path();
  const std::vector<std::string> turns = {"hello", "and then", "why", "some words", "more words", "the end", "or not"};
  std::string input;
  for (const std::string& turn : turns) input += turn + "\n";
  const Ended whole = run_program(flags + " -s 5", input);
  EXPECT_THAT(whole.err, HasSubstr("are forgotten"));
  for (size_t cut = 1; cut < turns.size(); ++cut) {
    const TemporaryFile session(".json");
    std::filesystem::remove(session.path());
    std::string begun, rest;
    for (size_t i = 0; i < turns.size(); ++i) (i < cut ? begun : rest) += turns[i] + "\n";
    const Ended first = run_program(flags + " -s 5 --session " + session.path(), begun + "/save\n");
    const Ended second = run_program(flags + " --session " + session.path(), rest);
    EXPECT_EQ(first.out + second.out, whole.out) << cut << second.err;
  }
}

TEST_F(Chat, SessionsFromStrangersGetOneLine) {
  const TemporaryFile session(".json");
  for (const char* content :
       {"", "{", "[]", "{\"messages\": 1}", "{\"messages\": [1]}", "{\"messages\": [{\"role\": \"user\"}]}",
        "{\"messages\": [{\"role\": \"user\", \"content\": 5}]}",
        "{\"messages\": [{\"role\": \"tool\", \"content\": \"\"}]}", "{\"messages\": [], \"turns\": -1}",
        "{\"messages\": [], \"seed\": 1.5}", "{\"messages\": [], \"token_ids\": 7}",
        "{\"messages\": [], \"token_ids\": [99999999999]}",
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
  const Ended ended = chat("hello\n/info\n/help\n/quit\nnever\n", "-c 99");
  EXPECT_EQ(ended.status, 0);
  EXPECT_EQ(lines_of(ended.out).size(), 1u) << "nothing comes after /quit";
  EXPECT_THAT(ended.err, HasSubstr("14 of 99 tokens"));
  EXPECT_THAT(ended.err, HasSubstr("turns    1"));
  EXPECT_THAT(ended.err, HasSubstr("/reset"));
}

TEST_F(Chat, LinesOfAFileMayBeginWithASlash) {
  const TemporaryFile session(".json");
  const Ended ended = chat("/etc/passwd is what?\n/quitting\n\"\"\"/save\nme\"\"\"\n/save " + session.path() + "\n");
  EXPECT_EQ(lines_of(ended.out).size(), 3u) << ended.err;
  const json saved = json::parse(std::ifstream(session.path()));
  ASSERT_EQ(saved["messages"].size(), 6u);
  EXPECT_EQ(saved["messages"][0]["content"], "/etc/passwd is what?");
  EXPECT_EQ(saved["messages"][2]["content"], "/quitting");
  EXPECT_EQ(saved["messages"][4]["content"], "/save\nme");
}

TEST_F(Chat, AMessageThatTheInputCutsShortIsOne) {
  EXPECT_EQ(chat("hello\\").out, chat("hello\n").out);
  EXPECT_EQ(chat("hello\\\nyou\\\n").out, chat("hello\\\nyou\n").out);
  EXPECT_EQ(chat("\"\"\"hello\nyou").out, chat("hello\\\nyou\n").out);
  EXPECT_EQ(chat("\"\"\"hello\nyou\n").out, chat("hello\\\nyou\n").out);
  EXPECT_EQ(lines_of(chat("hello\\").out).size(), 1u);
}

TEST_F(Chat, ASessionThatCannotBeLookedForIsNoNewOne) {
  const Ended ended = chat("hello\n", "--session " + std::string(300, 'x'));  // longer than names may be
  EXPECT_EQ(ended.status, 1);
  EXPECT_THAT(ended.err, HasSubstr("cannot look for xxx"));
  EXPECT_EQ(ended.out, "");
}

/// What a model's makers advise is followed where no flag says otherwise, by `run` and by `chat`.
TEST_F(Chat, TheMakersAdviceIsTheDefault) {
  const auto advised = [&](auto&& set) {
    ModelFile file = open_model(model_.path());
    set(file.metadata);
    auto path = std::make_unique<TemporaryFile>();
    write_gguf(path->path(), file.metadata, file.tensors);
    return path;
  };
  const auto texts = [](const TemporaryFile& model, const std::string& flags = {}) {
    std::set<std::string> all;
    for (const char* command : {"chat", "run"}) {
      for (int seed = 0; seed < 4; ++seed) {
        const Ended ended =
            run_program(fmt::format("{} -t 1 -n 8 --ignore-eos -s {} -m {} {} {}", command, seed, model.path(), flags,
                                    command == std::string("run") ? "-p '<|user|>hello<|end|><|assistant|>'" : ""),
                        "hello\n");
        EXPECT_EQ(ended.status, 0) << ended.err;
        EXPECT_THAT(ended.err, Not(HasSubstr("warning")));
        all.insert(std::string(command) + ended.out);
      }
    }
    return all.size();
  };
  EXPECT_EQ(texts(model_), 8u) << "without advice";
  const auto cold = advised([](Metadata& m) { m.set_float("general.sampling.temp", 0); });
  EXPECT_EQ(texts(*cold), 2u) << "greedy";
  EXPECT_EQ(texts(*cold, "--temp 0.8"), 8u) << "a flag that is as our default is a flag too";
  EXPECT_EQ(texts(*advised([](Metadata& m) { m.set_int("general.sampling.top_k", 1); })), 2u);
  EXPECT_EQ(texts(*advised([](Metadata& m) { m.set_float("general.sampling.top_p", 0.001); })), 2u);
  const auto absurd = advised([](Metadata& m) {
    m.set_float("general.sampling.temp", -1);
    m.set_int("general.sampling.top_k", -3);
    m.set_string("general.sampling.top_p", "all");
  });
  const std::string flags = " -t 1 -n 8 --ignore-eos -s 1 -m ";
  const Ended ended = run_program("chat" + flags + absurd->path(), "hello\n");
  EXPECT_EQ(ended.out, run_program("chat" + flags + model_.path(), "hello\n").out);
  for (const char* key : {"sampling.temp", "sampling.top_k", "sampling.top_p"}) EXPECT_THAT(ended.err, HasSubstr(key));
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
  terminal.type("/nonsense\r");
  ASSERT_TRUE(terminal.wait_for("no command /nonsense"));
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

TEST_F(Chat, LongPromptsShowHowFarTheyAre) {
  Terminal terminal({"chat", "-t", "1", "-n", "1", "-c", "3000", "-m", model_.path()});
  ASSERT_TRUE(terminal.wait_for("> "));
  for (int line = 0; line < 9; ++line) terminal.type(std::string(200, 'a') + "\\\r");
  terminal.type("b\r");
  EXPECT_TRUE(terminal.wait_for("reading the prompt: "));
  terminal.type("\x04");
  EXPECT_EQ(terminal.status(), 0);
}

TEST(Interrupts, TheOneAfterThoseThatAreCaughtEndsTheProgram) {
  const auto interrupt = [](int caught, int sent) {
    cli::catch_interrupts(caught);
    for (int i = 0; i < sent; ++i) std::raise(SIGINT);
    std::_Exit(cli::interrupted() ? 3 : 0);
  };
  EXPECT_EXIT(interrupt(0, 1), testing::ExitedWithCode(130), "");
  EXPECT_EXIT(interrupt(1, 0), testing::ExitedWithCode(0), "");
  EXPECT_EXIT(interrupt(1, 1), testing::ExitedWithCode(3), "");
  EXPECT_EXIT(interrupt(1, 2), testing::ExitedWithCode(130), "");
  EXPECT_EXIT(interrupt(2, 2), testing::ExitedWithCode(3), "");
  EXPECT_EXIT(interrupt(2, 3), testing::ExitedWithCode(130), "");
}

TEST(ChatWithTheBundledModel, ThreeTurns) {
  const TemporaryFile session(".json");
  const Ended ended = run_program("chat -v --chat-format plain -n 12 -s 1",
                                  "Hello.\nTell me a story.\nThank you.\n/save " + session.path() + "\n");
  ASSERT_EQ(ended.status, 0) << ended.err;
  std::vector<std::pair<int, int>> costs;  // new and all tokens of each turn's prompt
  for (const std::string& line : lines_of(ended.err)) {
    const size_t end = line.find(" prompt tokens were new");
    if (end == line.npos) continue;
    const size_t of = line.rfind(" of ", end), start = line.rfind(' ', of - 1) + 1;
    costs.emplace_back(std::stoi(line.substr(start)), std::stoi(line.substr(of + 4)));
  }
  ASSERT_EQ(costs.size(), 3u) << ended.err;
  EXPECT_EQ(costs[0].first, costs[0].second);
  EXPECT_LT(costs[1].first, costs[1].second);
  EXPECT_LT(costs[2].first, costs[2].second);
  const json saved = json::parse(std::ifstream(session.path()));
  ASSERT_EQ(saved["messages"].size(), 6u);
  for (size_t i = 1; i < 6; i += 2) EXPECT_NE(saved["messages"][i]["content"], "") << "turn " << i / 2;
}

TEST(ChatWithTheBundledModel, RemembersOverTurns) {
  const Ended ended = run_program("chat --temp 0",
                                  "Tom hid the red lamp in the barn. Where is the red lamp?\n"
                                  "Ann put the blue ball in the box. Where is the blue ball?\n"
                                  "Where is the red lamp?\n");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_THAT(lines_of(ended.out),
              testing::ElementsAre("It is in the barn.", "It is in the box.", "It is in the barn."));
}

// What a shell would offer after these words.
std::string offered(const std::string& words) {
  const TemporaryFile script(".sh"), out(".out");
  std::ofstream(script.path())
      << run_program("completion bash").out << "COMP_WORDS=(" << words
      << ")\nCOMP_CWORD=$((${#COMP_WORDS[@]} - 1))\n_contexture\nprintf '%s\\n' \"${COMPREPLY[@]}\"\n";
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
  EXPECT_EQ(offered("contexture eval need"), "needle\n");
  EXPECT_EQ(offered("contexture eval needle --dep"), "--depths\n");
  EXPECT_EQ(offered("contexture eval needle --k-format b"), "bf16\n");
  EXPECT_EQ(offered("contexture run -n 5"), "\n") << "a number is anybody's guess";
  const TemporaryFile spaced(" of two words*.gguf");
  std::ofstream(spaced.path()) << "here";
  const std::string start = fmt::format("'{}'", spaced.path().substr(0, spaced.path().find(' ')));
  EXPECT_EQ(offered("contexture run -m " + start), spaced.path() + "\n");
  EXPECT_EQ(offered("contexture convert " + start), spaced.path() + "\n");
  EXPECT_EQ(offered("contexture completion z"), "zsh\n");
  EXPECT_THAT(run_program("completion zsh").out, HasSubstr("bashcompinit"));
  EXPECT_EQ(run_program("completion tcsh").status, 2);
}

}  // namespace
}  // namespace contexture
