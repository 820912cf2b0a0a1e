#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "cli/program.h"
#include "support/random_model.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::HasSubstr;
using testing::StartsWith;

const std::string kShared = "../shared/data/";

/// One clear line on stderr, nothing on stdout, exit 1.
void expect_error(const Ended& ended, const std::string& says) {
  EXPECT_EQ(ended.status, 1) << ended.err;
  EXPECT_THAT(ended.err, StartsWith("error: "));
  EXPECT_THAT(ended.err, HasSubstr(says));
  EXPECT_EQ(std::count(ended.err.begin(), ended.err.end(), '\n'), 1) << ended.err;
  EXPECT_EQ(ended.out, "");
}

TEST(Cli, HelpAndWrongUsage) {
  EXPECT_EQ(run_program("--help").status, 0);
  EXPECT_EQ(run_program("--version").status, 0);
  for (const char* command : {"run", "tokenize", "detokenize", "logits", "info", "plan"}) {
    const Ended help = run_program(std::string(command) + " --help");
    EXPECT_EQ(help.status, 0);
    EXPECT_THAT(help.out, HasSubstr("--model"));
  }
  for (const char* wrong : {"",
                            "frobnicate",
                            "run --no-such-flag",
                            "run -n many",
                            "run --ctk q3_k",
                            "logits",
                            "run -p a -f b",
                            "run -c -1 -p a",
                            "run -n -2",
                            "run --temp nan",
                            "run --temp -1",
                            "run --top-p 2",
                            "run -s -2",
                            "run --repeat-penalty 0",
                            "run --typical -1",
                            "run --mirostat 3",
                            "run --xtc-probability nan",
                            "run --dry-base 0",
                            "run -t 0",
                            "plan --memory -5",
                            "eval needle --depths 1",
                            "logits --tokens 1 -o x --chunk 0"}) {
    const Ended ended = run_program(wrong);
    EXPECT_EQ(ended.status, 2) << wrong;
    EXPECT_EQ(ended.out, "") << wrong;
    EXPECT_NE(ended.err, "") << wrong;
  }
}

/// llama.cpp's users type these.
TEST(Cli, OtherProgramsFlagsAreFollowedOrSaidToMeanNothing) {
  const auto run = [](const std::string& flags) {
    return run_program("run -p 'Once upon a time' -n 8 --temp 0 " + flags);
  };
  const std::string story = run("").out;
  for (const char* flags : {"-ngl 0", "--n-gpu-layers 0", "-fa", "-fa on", "--flash-attn auto", "-b 512 -ub 64",
                            "--batch-size=512", "--mlock", "--no-mmap", "-fa --mlock"}) {
    const Ended ended = run(flags);
    EXPECT_EQ(ended.status, 0) << flags << ended.err;
    EXPECT_EQ(ended.out, story) << flags;
    EXPECT_THAT(ended.err, HasSubstr("has no effect")) << flags;
  }
  EXPECT_EQ(run("--ctx-size 64 --cache-type-k q8_0 --cache-type-v q8_0").out, run("-c 64 -ctk q8_0 -ctv q8_0").out);
  EXPECT_EQ(run("-r young").out, run("--stop young").out);
  EXPECT_EQ(run("-r young --reverse-prompt was").out, run("--stop was").out);
  EXPECT_EQ(run("--n-predict 3").status, 2) << "it was given twice";
  const json whole = json::parse(run_program("plan --json").out),
             own = json::parse(run_program("plan -c 0 --json").out);
  EXPECT_EQ(own, whole);
  EXPECT_THAT(run("-c 0 -v").err, HasSubstr(fmt::format("{} tokens", whole["max_context"].get<size_t>())));
}

TEST(Cli, EveryStepOfSamplingHasItsFlags) {
  const auto ids = [](const std::string& flags) {
    const Ended ended = run_program("run -p 'Once upon a time' -n 40 --temp 0 --json " + flags);
    EXPECT_EQ(ended.status, 0) << flags << ended.err;
    return json::parse(ended.out)["token_ids"].get<std::vector<int>>();
  };
  const std::vector<int> plain = ids("");
  for (const char* flags :
       {"--presence-penalty 0", "--repeat-penalty 1.5 --repeat-last-n 0", "--xtc-probability 1 --xtc-threshold 0.6",
        "--top-n-sigma -1", "--top-nsigma 2", "--dry-multiplier 100 --dry-penalty-last-n 0"}) {
    EXPECT_EQ(ids(flags), plain) << flags;
  }
  for (const std::string& flags :
       {std::string("--presence-penalty 100"), std::string("--frequency-penalty 100"),
        std::string("--xtc-probability 1 --xtc-threshold 0.01"),
        std::string("--dry-multiplier 100 --dry-allowed-length 0 --dry-sequence-breaker none"),
        fmt::format("--logit-bias {}-inf", plain[0]), fmt::format("-l {}+100", plain[1])}) {
    EXPECT_NE(ids(flags), plain) << flags;
  }
  const std::vector<int> banned = ids(fmt::format("--logit-bias {}-inf --logit-bias {}-inf", plain[0], plain[1]));
  EXPECT_EQ(std::ranges::count(banned, plain[0]) + std::ranges::count(banned, plain[1]), 0);
  const auto drawn = [](const std::string& flags) {
    return run_program("run -p 'Once upon a time' -n 40 -s 5 " + flags).out;
  };
  EXPECT_NE(drawn("--mirostat 2 --mirostat-ent 1"), drawn("--mirostat 2 --mirostat-ent 8 --mirostat-lr 0.5"));
  EXPECT_NE(drawn("--temp 2 --typical 0.2"), drawn("--temp 2"));
  for (const auto& [flags, says] : {std::pair{"--mirostat 1", "Mirostat 1"},
                                    {"--mirostat 2 --top-k 5", "--top-k"},
                                    {"--mirostat 2 --session x", "Mirostat"},
                                    {"--logit-bias 5", "--logit-bias 5"},
                                    {"--logit-bias 5+nan", "--logit-bias"},
                                    {"--logit-bias 5+inf", "--logit-bias"},
                                    {"--logit-bias 999999999+1", "999999999"}}) {
    const Ended ended = run_program(std::string("run -p a -n 1 ") + flags);
    EXPECT_EQ(ended.status, 1) << flags;
    EXPECT_THAT(ended.err, HasSubstr(says)) << flags;
  }
}

TEST(Cli, ASeedOfMinusOneIsARandomOne) {
  const auto text = [](const char* seed) {
    return run_program(fmt::format("run -p 'Once upon a time' -n 30 --temp 2 -s {}", seed)).out;
  };
  EXPECT_EQ(text("7"), text("7"));
  EXPECT_NE(text("-1"), text("-1"));
}

TEST(Cli, NoWordIsReadAsAFlagWithAValueGluedOn) {
  const auto refused = [](const std::string& flags, const std::string& says) {
    const Ended ended = run_program("run -p a -t 1 " + flags);
    EXPECT_EQ(ended.status, 2) << flags;
    EXPECT_EQ(ended.out, "") << flags;
    EXPECT_THAT(ended.err, StartsWith(says)) << flags;
  };
  refused("-ngl 99", "-ngl: ");
  refused("-ngl", "-ngl: ");
  refused("-hf owner/model", "-hf: ");
  refused("--hf-repo owner/model", "--hf-repo: ");
  refused("-tb 4", "-tb: ");
  refused("-nope", "-nope: ");
  refused("-mmodel.gguf", "-mmodel.gguf: ");
  refused("-vn 5", "-vn: ");
  EXPECT_EQ(run_program("run -p a -n3 -t1").status, 0) << "a number may be";
  EXPECT_EQ(run_program("run -vv -p a -n 3").status, 0) << "so may flags that take nothing";
  const Ended prompt = run_program("run -n 1 -p -ngl");
  EXPECT_EQ(prompt.status, 0) << "a prompt may look like a flag";
  EXPECT_THAT(prompt.out, StartsWith("-ngl"));
}

TEST(Cli, WhatIsNotUnderstoodIsNamedInOrder) {
  EXPECT_THAT(run_program("info one --two=2 three").err, HasSubstr("one --two=2 three"));
}

TEST(Cli, TheBundledModelWritesAStory) {
  const Ended ended = run_program("run -p 'Once upon a time' -n 60 --temp 0");
  EXPECT_EQ(ended.status, 0) << ended.err;
  EXPECT_THAT(ended.out, StartsWith("Once upon a time"));
  EXPECT_GT(ended.out.size(), 80u);
  EXPECT_THAT(ended.err, HasSubstr("seed "));
  EXPECT_THAT(ended.err, HasSubstr("GB/s"));
}

TEST(Cli, TheBundledModelRemembers) {
  const std::string told = "Tom hid the red lamp in the barn. Ann put the blue ball in the box. ";
  const Ended ended = run_program("run -p '" + told + "Where is the red lamp?' -n 6 --temp 0 --json");
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(json::parse(ended.out)["text"], " It is in the barn.");
  const Ended turns =
      run_program("run --temp 0 --json -p '<|user|>" + told +
                  "<|end|><|assistant|>All right.<|end|><|user|>Where is the blue ball?<|end|><|assistant|>'");
  ASSERT_EQ(turns.status, 0) << turns.err;
  EXPECT_EQ(json::parse(turns.out)["text"], "It is in the box.");
  EXPECT_EQ(json::parse(turns.out)["finish_reason"], "end");
}

TEST(Cli, RunAsJson) {
  const Ended ended = run_program("run -p 'Once upon a time' -n 12 -s 5 --json");
  ASSERT_EQ(ended.status, 0) << ended.err;
  const json result = json::parse(ended.out);
  for (const char* key :
       {"text", "prompt_tokens", "generated_tokens", "token_ids", "prefilled_tokens", "prefill_seconds",
        "prefill_tokens_per_second", "decode_tokens_per_second", "finish_reason"}) {
    EXPECT_TRUE(result.contains(key)) << key;
  }
  EXPECT_EQ(result["token_ids"].size(), result["generated_tokens"]);
  EXPECT_EQ(result["finish_reason"], "length");
  EXPECT_EQ(result["clamped_values"], 0);
  const Ended again = run_program("run -p 'Once upon a time' -n 12 -s 5 --json -t 1 -c 99 -ctk f16");
  EXPECT_EQ(json::parse(again.out)["token_ids"], result["token_ids"]) << "same seed, same text, whatever the threads";
  const json rated = json::parse(run_program("run -p 'Once upon a time' -n 12 -s 5 --json --log-probabilities").out);
  EXPECT_EQ(rated["log_probabilities"].size(), 12u);
  const Ended piped = run_program("run - -n 12 -s 5 --json", "Once upon a time");
  EXPECT_EQ(json::parse(piped.out)["token_ids"], result["token_ids"]);
  EXPECT_EQ(json::parse(run_program("run -p x --stop a --stop e --json -s 1").out)["finish_reason"], "stop");
}

TEST(Cli, ContextEndsARun) {
  const Ended ended = run_program("run -p 'Once upon a time' --ignore-eos -n 500 -c 100 --json");
  EXPECT_EQ(json::parse(ended.out)["finish_reason"], "context");
  expect_error(run_program("run -c 3 -p 'Once upon a time there was a little girl'"), "-c");
  if (!kSanitized) {
    EXPECT_EQ(json::parse(run_program("run -p 'Once' --ignore-eos -n -1 --json").out)["finish_reason"], "context")
        << "the bundled model was made for a bounded context";
  }
  EXPECT_EQ(run_program("run -p 'Once' -n 100000000000 --json").status, 0);
}

TEST(Cli, TokensAndBack) {
  const Ended ids = run_program("tokenize 'Once upon a time'");
  ASSERT_EQ(ids.status, 0) << ids.err;
  EXPECT_EQ(std::count(ids.out.begin(), ids.out.end(), '\n'), 1);
  const json both = json::parse(run_program("tokenize --json -", "Once upon a time").out);
  EXPECT_EQ(both["ids"].size(), both["pieces"].size());
  const json bare = json::parse(run_program("tokenize --json --no-bos 'Once upon a time'").out);
  EXPECT_EQ(bare["ids"].size() + 1, both["ids"].size());
  std::string list;
  for (const int id : bare["ids"]) list += fmt::format(" {}", id);
  EXPECT_EQ(run_program("detokenize" + list).out, "Once upon a time\n");
  list += " 2";
  EXPECT_EQ(run_program("detokenize 1" + list).out, "Once upon a time\n") << "control tokens add nothing";
  EXPECT_EQ(run_program("detokenize --special" + list).out, "Once upon a time</s>\n");
  EXPECT_EQ(run_program("tokenize -", "a\n").out == run_program("tokenize -", "a").out, false) << "newlines are kept";
  expect_error(run_program("detokenize 999999"), "999999");
}

TEST(Cli, VocabularyOnlyFilesServeTheCommandsThatNeedNoMore) {
  const std::string file = kShared + "vocab/ggml-vocab-gpt-2.gguf";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no " << file << " here";
  EXPECT_EQ(run_program("tokenize -m " + file + " 'Hello world'").out, "15496 995\n");
  EXPECT_EQ(run_program("info -m " + file).status, 0);
  expect_error(run_program("run -m " + file + " -p x"), "gpt2");
  expect_error(run_program("plan -m " + kShared + "vocab/ggml-vocab-llama-spm.gguf"), "no weights");
}

TEST(Cli, Llama2cFindsItsTokenizer) {
  const std::string file = kShared + "stories260k/stories260K.bin";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no " << file << " here";
  // The text that karpathy/llama2.c's doc/stories260K.md and test_all.py give for this model at temperature 0.
  const Ended ended = run_program("run --temp 0 -n 256 -ctk f32 -ctv f32 --json -m " + file);
  ASSERT_EQ(ended.status, 0) << ended.err;
  EXPECT_EQ(
      json::parse(ended.out)["text"].get<std::string>(),
      "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
      "big, red ball. She wanted to play with it, but it was too high.\n"
      "Lily's mom said, \"Lily, let's go to the park.\" Lily was sad and didn't know what to do. She said, \"I want to "
      "play with your ball, but I can't find it.\"\n"
      "Lily was sad and didn't know what to do. She said, \"I'm sorry, Lily. I didn't know what to do.\"\n"
      "Lily didn't want to help her mom, so she said, \"I'm sorry, mom. I didn't know what to do.\" Her mom said, "
      "\"Don't worry, Lily. We can help you.");
}

struct Numpy {
  std::string header;
  std::vector<float> values;
};

Numpy read_numpy(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes{std::istreambuf_iterator<char>(file), {}};
  EXPECT_EQ(bytes.substr(0, 8), std::string("\x93NUMPY\x01\x00", 8));
  const size_t length = static_cast<unsigned char>(bytes[8]) + 256u * static_cast<unsigned char>(bytes[9]);
  EXPECT_EQ((10 + length) % 64, 0u);
  Numpy numpy{bytes.substr(10, length), std::vector<float>((bytes.size() - 10 - length) / 4)};
  std::memcpy(numpy.values.data(), bytes.data() + 10 + length, numpy.values.size() * 4);
  return numpy;
}

TEST(Cli, LogitsAreTheSameForAnyChunkAndThreads) {
  const TemporaryFile model, one(".npy"), other(".npy");
  write_random_model({.vocabulary = 50, .format = Format::q8_0}, model.path());  // no vocabulary: none is needed
  const std::string base = "logits -m " + model.path() + " --tokens 1,2,3,4,5,6,7,49 --json -o ";
  const Ended first = run_program(base + one.path());
  ASSERT_EQ(first.status, 0) << first.err;
  const json result = json::parse(first.out);
  EXPECT_EQ(result["tokens"], 8);
  EXPECT_EQ(result["vocabulary"], 50);
  const Numpy numpy = read_numpy(one.path());
  EXPECT_THAT(numpy.header, HasSubstr("'shape': (8, 50)"));
  EXPECT_EQ(numpy.values.size(), 400u);
  const Ended second = run_program(base + other.path() + " --chunk 3 -t 1");
  EXPECT_EQ(json::parse(second.out)["sha256"], result["sha256"]);
  EXPECT_EQ(read_numpy(other.path()).values, numpy.values);
  expect_error(run_program("logits -m " + model.path() + " --tokens 50 -o " + one.path()), "50");
  EXPECT_EQ(read_numpy(one.path()).values, numpy.values) << "a failed run leaves the old file whole";
  expect_error(run_program("logits -m " + model.path() + " --tokens 1 -o /nowhere/x.npy"), "/nowhere/x.npy");
  expect_error(run_program("logits -m " + model.path() + " -p text -o " + one.path()), "tokenizer");
}

TEST(Cli, PlanAddsUp) {
  const json plan = json::parse(run_program("plan --json --cache contiguous --context 100").out);
  EXPECT_EQ(plan["total_bytes"].get<size_t>(), plan["weights_bytes"].get<size_t>() + plan["cache_bytes"].get<size_t>() +
                                                   plan["workspace_bytes"].get<size_t>());
  const json swapping = json::parse(run_program("plan --json --cache contiguous --context 100 --swap-memory 1MB").out);
  EXPECT_EQ(swapping["swap_bytes"], 1'000'000);
  EXPECT_EQ(swapping["total_bytes"].get<size_t>(), plan["total_bytes"].get<size_t>() + 1'000'000);
  const json larger = json::parse(run_program("plan --json --cache contiguous --context 200 -ctk f32 -ctv f32").out);
  EXPECT_EQ(larger["cache_bytes"].get<size_t>(), 4 * plan["cache_bytes"].get<size_t>());
  const size_t memory = plan["total_bytes"].get<size_t>();
  const std::string fitting = fmt::format("plan --json --cache contiguous --memory {}", memory);
  EXPECT_EQ(json::parse(run_program(fitting).out)["max_context"], 100);
  EXPECT_THAT(run_program("plan --cache mixed -ctk bf16").out, HasSubstr("cold K q4_0, cold V q4_0, rotated"));
  const Ended ignored = run_program("plan --hot-tokens 8");
  EXPECT_EQ(ignored.status, 1) << "what the layout has not is not passed over";
  EXPECT_THAT(ignored.err, HasSubstr("--hot-tokens is of a mixed cache, and this one is paged"));
  EXPECT_EQ(run_program("plan --cache mixed --hot-tokens 0").status, 2);
  EXPECT_EQ(run_program("plan --page-tokens 12").status, 2);
  for (const char* not_rotated : {"-ctk q8_0 -ctv f16", "-ctk q4_0 -ctv q4_0 --no-rotate"}) {
    EXPECT_THAT(run_program(std::string("plan ") + not_rotated).out, testing::Not(HasSubstr("rotated")));
  }
  EXPECT_THAT(run_program("plan -ctk q4_0").out, HasSubstr(", K rotated"));
  EXPECT_THAT(run_program("plan -ctk f16 -ctv f16 --rotate").out, HasSubstr(", rotated"));
  EXPECT_THAT(run_program("plan").out, HasSubstr("total"));
  EXPECT_GT(json::parse(run_program("plan --json --memory 1TB --sequences 1048576 -c 1").out)["max_context"], 0);
}

#if !defined(CONTEXTURE_SANITIZES_ADDRESSES) && !defined(CONTEXTURE_EMULATED)  // whose own memory would count
TEST(Cli, ResidentMemoryStaysWithinThePlan) {
  const TemporaryFile model;
  write_random_model({.dim = 1024,
                      .layers = 3,
                      .heads = 16,
                      .kv_heads = 8,
                      .ffn_dim = 4096,
                      .vocabulary = 259,
                      .format = Format::q8_0},
                     model.path(), /*with_vocabulary=*/true);
  const std::string prompt(1500, 'a');  // several chunks, so that all of the workspace is touched
  const json plan = json::parse(run_program("plan --json -c 1600 -m " + model.path()).out);
  const Ended ended = run_program("run --ignore-eos -n 20 -c 1600 -p " + prompt + " -m " + model.path());
  ASSERT_EQ(ended.status, 0) << ended.err;
  const double planned = plan["total_bytes"];
  EXPECT_LE(static_cast<double>(ended.peak_rss), planned * 1.03 + 32e6);
  EXPECT_GE(static_cast<double>(ended.peak_rss), planned * 0.9) << "the plan holds more than is used";
}
#endif

TEST(Cli, EvalNeedle) {
  const Ended ended = run_program("eval needle --json --depths 101,256 --page-tokens 8 -ctk f32");
  EXPECT_EQ(ended.status, 0) << ended.err;
  std::istringstream lines(ended.out);
  for (const int depth : {101, 256}) {
    std::string line;
    ASSERT_TRUE(std::getline(lines, line)) << ended.out;
    const json found = json::parse(line);
    const json expected = {{"depth", depth}, {"layout", "paged"}, {"k_format", "f32"},  {"v_format", "f16"},
                           {"needles", 50},  {"accuracy", 1.0},   {"k_rotated", false}, {"v_rotated", false}};
    for (const auto& [key, value] : expected.items()) EXPECT_EQ(found.value(key, json()), value) << key;
  }
  EXPECT_THAT(run_program("eval needle --depths 64 --needles 7 --cache mixed").out, HasSubstr("100.0 %"));
  EXPECT_THAT(run_program("run -m models/needle.gguf -p 'a k7 Q3 b c k7' -n 1 --temp 0").out,
              StartsWith("a k7 Q3 b c k7 Q3"));
  expect_error(run_program("eval needle --depths 128 -m models/stories-1m.gguf"), "is no needle model");
  expect_error(run_program("eval needle --depths 128,300000"), "262143");
  expect_error(run_program("eval needle --depths 128,99"), "1 to 49");
}

TEST(Cli, BadFilesGetOneLine) {
  const TemporaryFile bad;
  for (const std::string& content : {std::string(), std::string("GGUF"), std::string(1000, 'x')}) {
    std::ofstream(bad.path(), std::ios::binary) << content;
    for (const char* command : {"info", "plan", "tokenize x", "run -p x"}) {
      expect_error(run_program(std::string(command) + " -m " + bad.path()), "");
    }
  }
  expect_error(run_program("run -p x -m /nowhere.gguf"), "/nowhere.gguf");
  expect_error(run_program("run -p x -m /"), "/");
}

TEST(Cli, FamiliesNotKnownNameThemselves) {
  const std::string file = kShared + "vocab/ggml-vocab-gpt-2.gguf";
  if (!std::filesystem::exists(file)) GTEST_SKIP() << "no " << file << " here";
  expect_error(run_program("run -p x -m " + file), "gpt2");
}

TEST(Cli, CtrlCEndsCleanly) {
  const TemporaryFile model;  // slow enough that 4,000 tokens take seconds
  write_random_model({.dim = 256, .layers = 8, .heads = 8, .kv_heads = 8, .ffn_dim = 1024, .vocabulary = 259},
                     model.path(), /*with_vocabulary=*/true);
  const Ended ended = run_program_and_interrupt({"run", "-m", model.path(), "--ignore-eos", "-n", "4000", "-p", "abc"});
  EXPECT_EQ(ended.status, 130);
  EXPECT_THAT(ended.out, StartsWith("abc")) << "what was generated so far is flushed";
  EXPECT_THAT(ended.err, HasSubstr("cancelled"));
}

TEST(Cli, VerboseSaysWhatRuns) {
  EXPECT_THAT(run_program("run -p Once -n 1 -v").err, HasSubstr("of weights"));
  EXPECT_THAT(run_program("run -p Once -n 1 -vv").err, HasSubstr("kernels for"));
  EXPECT_THAT(run_program("run -p Once -n 1 --log-level 0").err, testing::Not(HasSubstr("of weights")));
}

TEST(Cli, PromptsComeFromFilesThatAreNoFiles) {
  EXPECT_EQ(json::parse(run_program("run -f /dev/stdin -n 1 --json", "Once upon a time").out)["prompt_tokens"], 5);
  expect_error(run_program("run -f /nowhere.txt -n 1"), "/nowhere.txt");
}

}  // namespace
}  // namespace contexture
