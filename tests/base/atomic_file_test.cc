#include "base/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/error.h"

namespace contexture {
namespace {

namespace fs = std::filesystem;

class AtomicFileTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "contexture-atomic-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    folder_ = name;
  }
  void TearDown() override { fs::remove_all(folder_); }

  static void write(AtomicFile& file, std::string_view text) { file.write(std::as_bytes(std::span(text))); }
  static std::string read(const fs::path& path) {
    std::ifstream file(path);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  size_t entries() const { return static_cast<size_t>(std::distance(fs::directory_iterator(folder_), {})); }

  fs::path folder_;
};

TEST_F(AtomicFileTest, AppearsWhenItIsWhole) {
  const fs::path path = folder_ / "file";
  std::ofstream(path) << "old";
  {
    AtomicFile file(path.string());
    write(file, "new");
    file.pad(8);
    EXPECT_EQ(read(path), "old");
    file.publish();
  }
  EXPECT_EQ(read(path), std::string("new\0\0\0\0\0", 8));
  EXPECT_EQ(entries(), 1u);
}

TEST_F(AtomicFileTest, LeavesTheOldFileWhenItIsGivenUp) {
  const fs::path path = folder_ / "file";
  std::ofstream(path) << "old";
  {
    AtomicFile file(path.string());
    write(file, "half of the n");
  }
  EXPECT_EQ(read(path), "old");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(AtomicFileTest, WritesThroughASymbolicLink) {
  const fs::path target = folder_ / "target", link = folder_ / "link";
  std::ofstream(target) << "old";
  fs::create_symlink(target, link);
  AtomicFile file(link.string());
  write(file, "new");
  file.publish();
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_EQ(read(target), "new");
}

TEST_F(AtomicFileTest, RefusesWhatIsNoFile) {
  const fs::path pipe = folder_ / "pipe";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  EXPECT_THROW(AtomicFile(pipe.string()), Error);
  EXPECT_THROW(AtomicFile(folder_.string()), Error);
  EXPECT_TRUE(fs::is_fifo(pipe));
}

}  // namespace
}  // namespace contexture
