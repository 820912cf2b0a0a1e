#include "files/gguf_writer.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>

#include "files/support.h"

namespace contexture {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Every type as a value and as the element of an array, at its limits; arrays of arrays; the empty ones.
Metadata metadata_of_every_type() {
  using enum MetadataType;
  Metadata m;
  const auto integers = [&](MetadataType type, int64_t low, int64_t high) {
    m.add(fmt::format("low {}", name(type)), {.type = type, .data = low});
    m.add(fmt::format("high {}", name(type)), {.type = type, .data = high});
    m.add(fmt::format("array {}", name(type)),
          {.type = array, .element = type, .data = std::vector<int64_t>{low, high, 1}});
  };
  integers(u8, 0, UINT8_MAX);
  integers(i8, INT8_MIN, INT8_MAX);
  integers(u16, 0, UINT16_MAX);
  integers(i16, INT16_MIN, INT16_MAX);
  integers(u32, 0, UINT32_MAX);
  integers(i32, INT32_MIN, INT32_MAX);
  integers(i64, INT64_MIN, INT64_MAX);
  integers(boolean, 0, 1);
  m.add("u64", {.type = u64, .data = UINT64_MAX});
  m.add("array u64", {.type = array, .element = u64, .data = std::vector<int64_t>{0, -1}});
  m.add("f32", {.type = f32, .data = 0.5});
  m.add("f64", {.type = f64, .data = 1e300});
  m.add("array f32",
        {.type = array, .element = f32, .data = std::vector<float>{0.5f, -std::numeric_limits<float>::infinity()}});
  m.add("array f64", {.type = array, .element = f64, .data = std::vector<float>{0.5f}});
  m.add("string", {.type = string, .data = std::string("a\0b\n", 4)});
  m.set_string("empty", "");
  m.set_strings("strings", {"", "\xe2\x96\x81the", "x"});
  m.set_ints("none", {});
  const MetadataValue inner{.type = array, .element = u8, .data = std::vector<int64_t>{1, 2}};
  const MetadataValue middle{.type = array, .element = array, .data = std::vector<MetadataValue>{inner, inner}};
  m.add("nested", {.type = array, .element = array, .data = std::vector<MetadataValue>{middle, inner}});
  return m;
}

std::vector<std::byte> some_bytes(size_t count) {
  std::vector<std::byte> bytes(count);
  for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<std::byte>(i * 7 + 1);
  return bytes;
}

size_t files_in(const TemporaryFolder& folder) {
  return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(folder.path()), {}));
}

TEST(GgufWriter, MetadataComesBackAsItWas) {
  const TemporaryFolder folder;
  const Metadata written = metadata_of_every_type();
  write_gguf(folder.file("m.gguf"), written, {});
  const ModelFile read = open_model(folder.file("m.gguf"));
  EXPECT_EQ(read.kind, "GGUF v3");
  ASSERT_EQ(read.metadata.entries().size(), written.entries().size());
  for (size_t i = 0; i < written.entries().size(); ++i) {
    EXPECT_EQ(read.metadata.entries()[i], written.entries()[i]) << written.entries()[i].first;
  }
}

TEST(GgufWriter, TensorsOfEveryFormatComeBackAsTheyWere) {
  const TemporaryFolder folder;
  std::vector<std::vector<std::byte>> data;
  std::vector<StoredTensor> tensors;
  for (const FormatInfo& format : weight_formats()) {
    data.push_back(some_bytes(3 * 2 * bytes_of(format.format, 512)));
    tensors.push_back({std::string(format.name), format.format, {3, 2, 512}, data.back()});
  }
  data.push_back(some_bytes(4));
  tensors.push_back({"scalar", Format::f32, {1}, data.back()});
  write_gguf(folder.file("m.gguf"), {}, tensors);

  const ModelFile model = open_model(folder.file("m.gguf"));
  ASSERT_EQ(model.tensors.size(), tensors.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    const StoredTensor& tensor = model.tensors[i];
    EXPECT_EQ(tensor.name, tensors[i].name);
    EXPECT_EQ(tensor.format, tensors[i].format);
    EXPECT_EQ(tensor.shape, tensors[i].shape);
    EXPECT_TRUE(std::equal(tensor.data.begin(), tensor.data.end(), data[i].begin(), data[i].end())) << tensor.name;
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data.data()) % 32, 0u);
  }
}

TEST(GgufWriter, AlignsAsTheMetadataSays) {
  const TemporaryFolder folder;
  Metadata metadata;
  metadata.set_int("general.alignment", 256);
  const auto data = some_bytes(4);
  const StoredTensor tensors[] = {{"a", Format::f32, {1}, data}, {"b", Format::f32, {1}, data}};
  write_gguf(folder.file("m.gguf"), metadata, tensors);
  const ModelFile model = open_model(folder.file("m.gguf"));
  EXPECT_EQ(model.find("b")->data.data() - model.find("a")->data.data(), 256);
  EXPECT_EQ(model.find("b")->data[3], data[3]);
}

TEST(GgufWriter, ReplacesAFileThatIsStillMapped) {
  const TemporaryFolder folder;
  const auto old_data = some_bytes(4), new_data = some_bytes(8);
  const StoredTensor old_tensor{"old", Format::f32, {1}, old_data}, new_tensor{"new", Format::f32, {2}, new_data};
  write_gguf(folder.file("m.gguf"), {}, {&old_tensor, 1});
  const ModelFile before = open_model(folder.file("m.gguf"));
  write_gguf(folder.file("m.gguf"), {}, {&new_tensor, 1});
  EXPECT_EQ(before.find("old")->data[0], old_data[0]);
  EXPECT_TRUE(open_model(folder.file("m.gguf")).find("new"));
  EXPECT_EQ(files_in(folder), 1u);
}

TEST(GgufWriter, RefusesATensorThatDoesNotMatchItsBytes) {
  const TemporaryFolder folder;
  const auto data = some_bytes(18);
  const auto error = [&](Format format, std::vector<int64_t> shape) {
    const StoredTensor tensor{"t", format, std::move(shape), data};
    return error_of([&] { write_gguf(folder.file("m.gguf"), {}, {&tensor, 1}); });
  };
  EXPECT_EQ(error(Format::q4_0, {32}), "");
  EXPECT_THAT(error(Format::q4_0, {33}), HasSubstr("tensor t: (33) is no shape for q4_0"));
  EXPECT_THAT(error(Format::q4_0, {2, 32}), HasSubstr("(2, 32)"));
  EXPECT_THAT(error(Format::f32, {}), HasSubstr("tensor t"));
}

TEST(GgufWriter, TakesDataAsItIsMade) {
  const TemporaryFolder folder;
  const auto data = some_bytes(4 * 6);
  const StoredTensor tensors[] = {{"a", Format::f32, {2, 2}, {}}, {"b", Format::f32, {2}, {}}};
  const auto write_in_pieces = [&](size_t last_piece) {
    write_gguf(folder.file("m.gguf"), {}, tensors, [&](size_t tensor, const auto& write) {
      const std::span<const std::byte> all = data;
      if (tensor == 1) return write(all.subspan(16, last_piece));
      write(all.first(4));
      write(all.subspan(4, 12));
    });
  };
  write_in_pieces(8);
  const ModelFile file = open_model(folder.file("m.gguf"));
  EXPECT_TRUE(std::ranges::equal(file.find("a")->data, std::span(data).first(16)));
  EXPECT_TRUE(std::ranges::equal(file.find("b")->data, std::span(data).subspan(16)));
  EXPECT_THAT(error_of([&] { write_in_pieces(4); }), HasSubstr("does not make 4 bytes"));
  EXPECT_TRUE(open_model(folder.file("m.gguf")).find("b")) << "the old file stays";
}

/// No file may grow beyond a size while this lives: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit limit{.rlim_cur = bytes, .rlim_max = before_.rlim_max};
    setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FullDisk() {
    setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_;
  void (*handler_)(int);
};

TEST(GgufWriter, LeavesNothingBehindWhereTheDiskIsFull) {
  const TemporaryFolder folder;
  const auto data = some_bytes(1 << 20);
  const StoredTensor tensor{"t", Format::f32, {1 << 18}, data};
  std::string message;
  {
    const FullDisk disk(100000);
    message = error_of([&] { write_gguf(folder.file("m.gguf"), {}, {&tensor, 1}); });
  }
  EXPECT_THAT(message, HasSubstr("m.gguf"));
  EXPECT_THAT(message, HasSubstr("make room"));
  EXPECT_EQ(files_in(folder), 0u);
}

TEST(GgufWriter, SaysThatTheFolderIsMissing) {
  const TemporaryFolder folder;
  const auto message = error_of([&] { write_gguf(folder.file("none/m.gguf"), {}, {}); });
  EXPECT_THAT(message, HasSubstr("none/m.gguf"));
}

TEST(GgufWriter, DoesNotReplaceAFolder) {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder.file("m.gguf"));
  EXPECT_THAT(error_of([&] { write_gguf(folder.file("m.gguf"), {}, {}); }), HasSubstr("is not a file"));
  EXPECT_EQ(files_in(folder), 1u);
}

}  // namespace
}  // namespace contexture
