// Model files as other tools write them, and what the commands make of them.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "cli/program.h"
#include "support/random_model.h"

namespace contexture {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

/// Files that a script makes of the bundled model, each as some tool leaves it.
class ModelFileTrials : public testing::Test {
 protected:
  static constexpr const char* kTrials = "../shared/data/trials";

  static void SetUpTestSuite() {
    made_ =
        std::filesystem::exists(kTrials) &&
        run_program(fmt::format("{}/make_trials.py . {}", kTrials, folder_.path()), "", "/usr/bin/python3").status == 0;
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_.path()); }
  void SetUp() override {
    if (!made_) GTEST_SKIP() << "no " << kTrials << " here, or no python3";
  }

  static std::string file(const std::string& name) { return folder_.path() + "/" + name; }
  /// What a model's logits hash to.
  static std::string logits_of(const std::string& model) {
    const TemporaryFile out(".npy");
    const Ended ended = run_program(fmt::format("logits --tokens 5 6 7 8 --json -o {} -m {}", out.path(), model));
    EXPECT_EQ(ended.status, 0) << ended.err;
    return ended.status == 0 ? json::parse(ended.out)["sha256"].get<std::string>() : "";
  }

 private:
  inline static const TemporaryFile folder_{".trials"};
  inline static bool made_ = false;
};

TEST_F(ModelFileTrials, AMergedFileIsTheModel) {
  EXPECT_EQ(logits_of(file("merged.gguf")), logits_of("models/stories-1m.gguf"));
}

TEST_F(ModelFileTrials, ARotationFactorWithoutATypeIsLinear) {
  EXPECT_EQ(logits_of(file("rope_factor_only.gguf")), logits_of(file("rope_linear.gguf")));
  EXPECT_NE(logits_of(file("rope_linear.gguf")), logits_of("models/stories-1m.gguf"));
}

TEST_F(ModelFileTrials, WindowsMayBeOneBoolALayer) {
  if (!std::filesystem::exists(file("g3.gguf"))) GTEST_SKIP() << "the script could not make it";
  EXPECT_EQ(logits_of(file("g3_pattern_array.gguf")), logits_of(file("g3.gguf")));
}

TEST_F(ModelFileTrials, AGlobOfPartsDestroysNone) {
  const std::string before = logits_of(file("n-00001-of-00002.gguf"));
  const Ended glob = run_program("convert " + file("n-*.gguf"));
  EXPECT_EQ(glob.status, 1);
  EXPECT_THAT(glob.err, AllOf(HasSubstr("n-00002-of-00002.gguf"), HasSubstr("reads")));
  EXPECT_EQ(logits_of(file("n-00001-of-00002.gguf")), before);
  EXPECT_EQ(run_program(fmt::format("convert {} {}", file("n-00002-of-00002.gguf"), file("whole.gguf"))).status, 0);
  EXPECT_EQ(logits_of(file("whole.gguf")), before);
}

TEST_F(ModelFileTrials, FoldersNeedNoWeightsToBeDescribed) {
  const std::string model = fmt::format(" -m {}/no-max-position", kTrials);
  const Ended info = run_program("info --json" + model);
  ASSERT_EQ(info.status, 0) << info.err;
  EXPECT_EQ(json::parse(info.out)["context"], 2048) << "as the class has it";
  EXPECT_THAT(json::parse(info.out)["weights_absent"].get<std::string>(), HasSubstr("model.safetensors is missing"));
  const Ended plan = run_program("plan --json" + model);
  ASSERT_EQ(plan.status, 0) << plan.err;
  // f32: the embedding twice, and a layer's four square matrices of attention and three of the feed-forward.
  const int matrices = 4 * (2 * 64 * 64 + 4 * 64 * 64 + 3 * 64 * 128), norms = 4 * 3 * 64;
  EXPECT_EQ(json::parse(plan.out)["weights_bytes"], matrices + norms);
  EXPECT_EQ(run_program("run -p x" + model).status, 1) << "which needs them";
}

TEST_F(ModelFileTrials, GitLfsPointersAreNamed) {
  for (const char* model : {"lfs-pointer.gguf", "lfs-dir"}) {
    for (const char* command : {"run -p x", "tokenize x", "info", "plan", "convert"}) {
      const std::string name = fmt::format("{}/{}", kTrials, model);
      const bool converts = std::string(command) == "convert";
      const Ended ended = run_program(converts ? fmt::format("convert {} {}", name, file("out.gguf"))
                                               : fmt::format("{} -m {}", command, name));
      EXPECT_THAT(ended.out + ended.err, HasSubstr("is a Git LFS pointer")) << command << " " << model;
    }
  }
}

TEST(ModelFiles, ConvertSaysWhatFallsBack) {
  const TemporaryFile out;
  const Ended ended = run_program(fmt::format("convert --json --type q4_k models/needle.gguf {}", out.path()));
  ASSERT_EQ(ended.status, 0) << ended.err;
  const json made = json::parse(ended.out);
  EXPECT_EQ(made["formats"], (json{{"f32", 6}, {"q5_0", 14}, {"q8_0", 1}}));
  EXPECT_EQ(made["fallbacks"].size(), 2u);
  EXPECT_THAT(ended.err,
              AllOf(HasSubstr("no whole blocks of q4_k, so q5_0 instead: "), HasSubstr("blk.*.attn_q.weight")));
  const Ended whole = run_program(fmt::format("convert --json --type q8_0 models/needle.gguf {}", out.path()));
  EXPECT_EQ(json::parse(whole.out)["fallbacks"], json::array());
  EXPECT_THAT(whole.err, Not(HasSubstr("instead")));
}

}  // namespace
}  // namespace contexture
