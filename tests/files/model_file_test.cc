#include "files/model_file.h"

#include <gmock/gmock.h>

#include "files/support.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::HasSubstr;

std::string error_opening(const std::string& path) {
  const std::string message = error_of([&] { (void)open_model(path); });
  EXPECT_THAT(message, HasSubstr(path));
  return message;
}

TEST(OpenModel, SaysWhatItKnowsWhereAFileIsOfNoKnownFormat) {
  const TemporaryFolder folder;
  save(folder.file("notes.txt"), Bytes().raw("Dear diary, today I looked for a model of mine."));
  EXPECT_THAT(error_opening(folder.file("notes.txt")), AllOf(HasSubstr("GGUF"), HasSubstr("llama2.c")));
  save(folder.file("short"), Bytes().raw("GG"));
  EXPECT_THAT(error_opening(folder.file("short")), HasSubstr("GGUF"));
}

TEST(OpenModel, RefusesWhatIsNoFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(error_opening(folder.file("missing.gguf")), HasSubstr("cannot open"));
  EXPECT_THAT(error_opening(folder.path()), HasSubstr("no model in this folder"));
  EXPECT_THAT(error_opening("/dev/null"), HasSubstr("is not a file"));
  save(folder.file("empty.gguf"), {});
  EXPECT_THAT(error_opening(folder.file("empty.gguf")), HasSubstr("is empty"));
}

TEST(OpenModel, FollowsSymbolicLinks) {
  const TemporaryFolder folder;
  save(folder.file("blob"), Bytes().header(3, 0, 0));
  std::filesystem::create_symlink("blob", folder.file("model.gguf"));
  EXPECT_EQ(open_model(folder.file("model.gguf")).kind, "GGUF v3");
  std::filesystem::create_symlink("nowhere", folder.file("dangling.gguf"));
  EXPECT_THAT(error_opening(folder.file("dangling.gguf")), HasSubstr("cannot open"));
}

TEST(OpenModel, TensorsOutliveAMove) {
  const TemporaryFolder folder;
  save(folder.file("m.gguf"), Bytes().header(3, 1, 0).tensor("t", {1}, 0, 0).pad(32).number(2.5f));
  ModelFile moved;
  {
    ModelFile model = open_model(folder.file("m.gguf"));
    moved = std::move(model);
  }
  float value;
  std::memcpy(&value, moved.find("t")->data.data(), sizeof(value));
  EXPECT_EQ(value, 2.5f);
}

class VocabularyFile : public testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, VocabularyFile, testing::Values("llama-spm", "phi-3", "gpt-2", "deepseek-coder"));

TEST_P(VocabularyFile, OpensWithoutTensors) {
  const std::string path = fmt::format("../shared/data/vocab/ggml-vocab-{}.gguf", GetParam());
  if (!std::filesystem::exists(path)) GTEST_SKIP() << path << " is not here";
  const ModelFile model = open_model(path);
  EXPECT_TRUE(model.tensors.empty());
  EXPECT_GE(model.metadata.get_strings("tokenizer.ggml.tokens").size(), 32000u);
  EXPECT_EQ(model.metadata.get_ints("tokenizer.ggml.token_type").size(),
            model.metadata.get_strings("tokenizer.ggml.tokens").size());
}

}  // namespace
}  // namespace contexture
