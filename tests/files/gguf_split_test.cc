// Models split over several GGUF files.

#include <gmock/gmock.h>

#include "files/gguf_writer.h"
#include "files/support.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::HasSubstr;

/// What a part says, right unless a test says otherwise.
struct Part {
  int64_t number = 0;
  int64_t count = 3;
  int64_t tensors = 3;
  std::string tensor;
  std::string architecture = "llama";
};

void write(const std::string& path, const Part& part) {
  Metadata metadata;
  metadata.set_string("general.architecture", part.architecture);
  metadata.set_int("split.no", part.number);
  metadata.set_int("split.count", part.count);
  metadata.set_int("split.tensors.count", part.tensors);
  if (part.number == 0) metadata.set_string("general.name", "split");
  const std::vector<std::byte> data(4, static_cast<std::byte>(part.number));
  const StoredTensor tensor{part.tensor, Format::f32, {1}, data};
  write_gguf(path, metadata, {&tensor, 1});
}

class GgufSplit : public testing::Test {
 protected:
  GgufSplit() {
    write(part(1), {.number = 0, .tensor = "a"});
    write(part(2), {.number = 1, .tensor = "b"});
    write(part(3), {.number = 2, .tensor = "c"});
  }
  std::string part(int number) const { return folder_.file(fmt::format("model-{:05}-of-00003.gguf", number)); }
  std::string error(int opened = 1) const {
    return error_of([&] { (void)open_model(part(opened)); });
  }

  TemporaryFolder folder_;
};

TEST_F(GgufSplit, OpensWholeFromEveryPart) {
  for (int number = 1; number <= 3; ++number) {
    const ModelFile model = open_model(part(number));
    EXPECT_EQ(model.kind, "GGUF v3, 3 parts");
    EXPECT_EQ(model.path, part(number));
    EXPECT_EQ(model.metadata.get_string("general.name"), "split");
    ASSERT_EQ(model.tensors.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_EQ(model.tensors[i].name, std::string(1, static_cast<char>('a' + i)));
      EXPECT_EQ(model.tensors[i].data[0], static_cast<std::byte>(i));
    }
  }
}

TEST_F(GgufSplit, NamesAMissingPart) {
  std::filesystem::remove(part(2));
  for (const int opened : {1, 3}) {
    EXPECT_THAT(error(opened), AllOf(HasSubstr(part(2)), HasSubstr("is missing: part 2 of 3")));
  }
}

TEST_F(GgufSplit, RefusesAPartUnderAnotherName) {
  std::filesystem::rename(part(2), folder_.file("renamed.gguf"));
  EXPECT_THAT(error_of([&] { (void)open_model(folder_.file("renamed.gguf")); }),
              AllOf(HasSubstr("part 2 of 3"), HasSubstr("-00002-of-00003.gguf")));
}

TEST_F(GgufSplit, RefusesPartsInTheWrongPlace) {
  std::filesystem::copy_file(part(3), part(2), std::filesystem::copy_options::overwrite_existing);
  EXPECT_THAT(error(), AllOf(HasSubstr(part(2)), HasSubstr("says it is part 3 of 3"), HasSubstr("part 2 of 3")));
}

TEST_F(GgufSplit, RefusesAPartOfAnotherCount) {
  write(part(2), {.number = 1, .count = 4, .tensor = "b"});
  EXPECT_THAT(error(), AllOf(HasSubstr(part(2)), HasSubstr("part 2 of 4")));
}

TEST_F(GgufSplit, RefusesPartsThatDisagreeOnTheTensors) {
  write(part(3), {.number = 2, .tensors = 4, .tensor = "c"});
  EXPECT_THAT(error(), AllOf(HasSubstr(part(3)), HasSubstr("with 4")));
}

TEST_F(GgufSplit, RefusesAWrongSumOfTensors) {
  write(part(1), {.number = 0, .tensors = 4, .tensor = "a"});
  write(part(2), {.number = 1, .tensors = 4, .tensor = "b"});
  write(part(3), {.number = 2, .tensors = 4, .tensor = "c"});
  EXPECT_THAT(error(), AllOf(HasSubstr("3 tensors"), HasSubstr("split.tensors.count says 4")));
}

TEST_F(GgufSplit, RefusesATensorInTwoParts) {
  write(part(3), {.number = 2, .tensor = "b"});
  EXPECT_THAT(error(), HasSubstr("tensor b is there twice"));
}

TEST_F(GgufSplit, RefusesPartsOfDifferentModels) {
  write(part(3), {.number = 2, .tensor = "c", .architecture = "phi3"});
  EXPECT_THAT(error(), AllOf(HasSubstr(part(3)), HasSubstr("general.architecture"), HasSubstr("different models")));
}

TEST_F(GgufSplit, RefusesAPartThatIsNoPart) {
  write_gguf(part(2), {}, {});
  EXPECT_THAT(error(), HasSubstr(part(2)));
  save(part(2), Bytes().raw("something else"));
  EXPECT_THAT(error(), AllOf(HasSubstr(part(2)), HasSubstr("no GGUF file")));
  std::filesystem::remove(part(2));
  std::filesystem::create_directory(part(2));
  EXPECT_THAT(error(), HasSubstr(part(2)));
}

TEST_F(GgufSplit, RefusesAbsurdCountsAtOnce) {
  const auto error_for = [&](const Part& part) {
    const std::string path = folder_.file(fmt::format("absurd-00001-of-{:05}.gguf", part.count));
    write(path, part);
    return error_of([&] { (void)open_model(path); });
  };
  EXPECT_THAT(error_for({.count = 99999, .tensor = "a"}), HasSubstr("absurd-00002-of-99999.gguf is missing"));
  EXPECT_THAT(error_for({.count = 100000, .tensor = "a"}), HasSubstr("split.count is 100000"));
  EXPECT_THAT(error_for({.count = -1, .tensor = "a"}), HasSubstr("split.count is -1"));
  EXPECT_THAT(error_for({.number = 3, .count = 3, .tensor = "a"}), HasSubstr("split.no is 3"));
}

TEST_F(GgufSplit, OpensTwoParts) {
  write(folder_.file("two-00001-of-00002.gguf"), {.number = 0, .count = 2, .tensors = 2, .tensor = "a"});
  write(folder_.file("two-00002-of-00002.gguf"), {.number = 1, .count = 2, .tensors = 2, .tensor = "b"});
  EXPECT_EQ(open_model(folder_.file("two-00002-of-00002.gguf")).tensors.size(), 2u);
}

TEST_F(GgufSplit, OneFileIsWholeWhateverElseItSays) {
  // 0 is what the usual tool leaves behind when it merges parts.
  for (const int64_t count : {0, 1}) {
    write(folder_.file("whole.gguf"), {.count = count, .tensors = 1, .tensor = "a"});
    EXPECT_EQ(open_model(folder_.file("whole.gguf")).kind, "GGUF v3");
    write(folder_.file("whole.gguf"), {.number = 2, .count = count, .tensors = 2, .tensor = "a"});
    EXPECT_EQ(open_model(folder_.file("whole.gguf")).tensors.size(), 1u);
  }
}

TEST_F(GgufSplit, SaysWhatPartsJoinedEndToEndAre) {
  const auto joined = [&](std::vector<std::string> parts) {
    Bytes all;
    for (const std::string& part : parts) {
      const std::vector<std::byte> bytes = load(part);
      all.raw({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    }
    save(folder_.file("joined.gguf"), all);
    return error_of([&] { (void)open_model(folder_.file("joined.gguf")); });
  };
  EXPECT_THAT(joined({part(1), part(2), part(3)}), AllOf(HasSubstr("end to end"), HasSubstr("--merge")));
  EXPECT_THAT(joined({part(2)}), AllOf(HasSubstr("part 2 of 3"), HasSubstr("-00002-of-00003.gguf")));
  // A first part that holds metadata alone.
  Metadata metadata;
  metadata.set_int("split.no", 0);
  metadata.set_int("split.count", 3);
  metadata.set_int("split.tensors.count", 2);
  write_gguf(part(1), metadata, {});
  EXPECT_THAT(joined({part(1), part(2), part(3)}), HasSubstr("end to end"));
  EXPECT_THAT(joined({part(1)}), HasSubstr("part 1 of 3"));
}

}  // namespace
}  // namespace contexture
