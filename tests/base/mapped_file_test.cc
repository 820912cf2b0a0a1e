#include "base/mapped_file.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/error.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class MappedFileTest : public testing::Test {
 protected:
  MappedFileTest() {
    std::string name = (std::filesystem::temp_directory_path() / "contexture-test-XXXXXX").string();
    folder_ = mkdtemp(name.data());
  }
  ~MappedFileTest() override { std::filesystem::remove_all(folder_); }

  std::string file(std::string_view name, std::string_view text) const {
    const std::string path = (folder_ / name).string();
    std::ofstream(path, std::ios::binary) << text;
    return path;
  }
  static std::string text(const MappedFile& file) {
    return {reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size()};
  }
  static std::string error(const std::string& path) {
    try {
      const MappedFile file(path);
    } catch (const Error& error) {
      return error.what();
    }
    return "";
  }

  std::filesystem::path folder_;
};

TEST_F(MappedFileTest, NamesAGitLfsPointer) {
  const std::string pointer = file("model.gguf", "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n");
  EXPECT_THAT(error(pointer), AllOf(HasSubstr(pointer), HasSubstr("Git LFS pointer"), HasSubstr("git lfs pull")));
  EXPECT_TRUE(is_git_lfs_pointer(pointer));
  const std::string text = file("text", "version https://git-lfs");
  EXPECT_EQ(error(text), "");
  EXPECT_FALSE(is_git_lfs_pointer(text));
  EXPECT_FALSE(is_git_lfs_pointer(text + ".missing"));
}

TEST_F(MappedFileTest, ShowsTheBytes) {
  const std::string path = file("a", "hello");
  const MappedFile mapped(path);
  EXPECT_EQ(text(mapped), "hello");
  EXPECT_EQ(mapped.path(), path);
}

TEST_F(MappedFileTest, AnEmptyFileIsAnEmptySpan) {
  EXPECT_TRUE(MappedFile(file("a", "")).bytes().empty());
}

TEST_F(MappedFileTest, StaysInPlaceWhenMoved) {
  MappedFile first(file("a", "first")), second(file("b", "second"));
  const auto* place = first.bytes().data();
  MappedFile moved(std::move(first));
  EXPECT_EQ(moved.bytes().data(), place);
  moved = std::move(second);
  EXPECT_EQ(text(moved), "second");
}

TEST_F(MappedFileTest, OutlivesTheName) {
  const std::string path = file("a", "hello");
  const MappedFile mapped(path);
  std::filesystem::remove(path);
  EXPECT_EQ(text(mapped), "hello");
}

TEST_F(MappedFileTest, FollowsSymbolicLinks) {
  file("a", "hello");
  std::filesystem::create_symlink("a", folder_ / "link");
  EXPECT_EQ(text(MappedFile(folder_ / "link")), "hello");
}

TEST_F(MappedFileTest, RefusesWhatIsNoFile) {
  EXPECT_THAT(error(folder_ / "missing"), AllOf(HasSubstr("missing"), HasSubstr("cannot open")));
  EXPECT_THAT(error(folder_), AllOf(HasSubstr(folder_.string()), HasSubstr("is not a file")));
  EXPECT_THAT(error("/dev/null"), HasSubstr("/dev/null is not a file"));
  EXPECT_THAT(error(""), HasSubstr("cannot open"));
}

TEST_F(MappedFileTest, RefusesAnUnreadableFile) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const std::string path = file("a", "hello");
  std::filesystem::permissions(path, std::filesystem::perms::none);
  EXPECT_THAT(error(path), HasSubstr("cannot open"));
}

TEST_F(MappedFileTest, IsKnownUnderAnyNameForAsLongAsItIsMapped) {
  const std::string path = file("file", "hello"), link = path + ".link", same = path + ".same";
  std::filesystem::create_symlink(path, link);
  std::filesystem::create_hard_link(path, same);
  {
    const MappedFile map(path);
    MappedFile second(path);
    const MappedFile moved(std::move(second));
    for (const std::string& name : {path, link, same}) EXPECT_TRUE(is_mapped(name)) << name;
    EXPECT_FALSE(is_mapped(file("other", "hello")));
    EXPECT_FALSE(is_mapped(path + ".none"));
  }
  EXPECT_FALSE(is_mapped(path));
}

}  // namespace
}  // namespace contexture
