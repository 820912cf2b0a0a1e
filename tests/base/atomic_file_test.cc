#include "base/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

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

mode_t mode_of(const fs::path& path) {
  struct stat status = {};
  EXPECT_EQ(stat(path.c_str(), &status), 0);
  return status.st_mode & 07777;
}

TEST_F(AtomicFileTest, KeepsPermissionsAndOwnerOfTheOldFile) {
  for (const FileAccess access : {FileAccess::shared, FileAccess::owner_only}) {
    for (const mode_t mode : {0600, 0640, 0666, 0755}) {
      const fs::path path = folder_ / "file";
      std::ofstream(path) << "old";
      ASSERT_EQ(chmod(path.c_str(), mode), 0);
      const bool is_root = geteuid() == 0;
      if (is_root) {
        ASSERT_EQ(chown(path.c_str(), 12, 34), 0);
      }
      AtomicFile file(path.string(), access);
      write(file, "new");
      file.publish();
      EXPECT_EQ(mode_of(path), mode);
      struct stat status = {};
      ASSERT_EQ(stat(path.c_str(), &status), 0);
      if (is_root) {
        EXPECT_EQ(std::pair(status.st_uid, status.st_gid), (std::pair<uid_t, gid_t>(12, 34)));
      }
      EXPECT_EQ(read(path), "new");
    }
  }
}

TEST_F(AtomicFileTest, NewFilesAreForAllWhomTheMaskLetsOrForTheOwnerAlone) {
  const mode_t mask = umask(022);
  const fs::path shared = folder_ / "shared", own = folder_ / "own";
  AtomicFile(shared.string()).publish();
  AtomicFile(own.string(), FileAccess::owner_only).publish();
  umask(mask);
  EXPECT_EQ(mode_of(shared), 0644u);
  EXPECT_EQ(mode_of(own), 0600u);
}

TEST_F(AtomicFileTest, ManyMayBeWrittenAtOnceAndTheLastOneStays) {
  const fs::path path = folder_ / "file";
  AtomicFile first(path.string()), second(path.string()), third(path.string());
  EXPECT_EQ(entries(), 3u);
  write(second, "second");
  write(first, "first");
  second.publish();
  first.publish();
  EXPECT_EQ(read(path), "first");
}

TEST_F(AtomicFileTest, NamesAsLongAsTheyMayBe) {
  const fs::path path = folder_ / std::string(255, 'x');
  AtomicFile file(path.string());
  write(file, "new");
  file.publish();
  EXPECT_EQ(read(path), "new");
}

TEST_F(AtomicFileTest, NothingStaysWhereItCannotGetItsName) {
  const fs::path path = folder_ / "file";
  {
    AtomicFile file(path.string());
    fs::create_directory(path);  // meanwhile
    EXPECT_THROW(file.publish(), Error);
  }
  EXPECT_EQ(entries(), 1u) << "the folder";
}

TEST_F(AtomicFileTest, ASignalHandlerRemovesWhatIsNotWhole) {
  const fs::path whole = folder_ / "whole", half = folder_ / "half";
  AtomicFile done(whole.string());
  done.publish();
  { AtomicFile given_up((folder_ / "given up").string()); }
  AtomicFile file(half.string());
  EXPECT_EQ(entries(), 2u);
  remove_partial_paths();
  EXPECT_EQ(entries(), 1u);
  EXPECT_TRUE(fs::exists(whole));
}

TEST_F(AtomicFileTest, ALinkToNothingYetStaysALink) {
  const fs::path link = folder_ / "link", second = folder_ / "second";
  fs::create_symlink("target", link);
  fs::create_symlink(link, second);
  AtomicFile file(second.string());
  write(file, "new");
  file.publish();
  EXPECT_TRUE(fs::is_symlink(link));
  EXPECT_TRUE(fs::is_symlink(second));
  EXPECT_EQ(read(folder_ / "target"), "new");
  const fs::path circle = folder_ / "circle";
  fs::create_symlink("circle", circle);
  EXPECT_THROW(AtomicFile(circle.string()), Error);
}

TEST_F(AtomicFileTest, PartialPathsGoFilesBeforeTheirFolder) {
  const fs::path folder = folder_ / "folder";
  fs::create_directory(folder);
  const PartialPath partial(folder.string()), file((folder / "file").string());
  std::ofstream(file.path()) << "half";
  remove_partial_paths();
  EXPECT_FALSE(fs::exists(folder));
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
