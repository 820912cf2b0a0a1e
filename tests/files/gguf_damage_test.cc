// GGUF files damaged in every place: they open or they are refused, and never take more memory than they are worth.

#include <gtest/gtest.h>

#include "files/gguf.h"
#include "files/support.h"
#include "support/allocations.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

// What opening may take: a small multiple of the file, and a few messages.
constexpr size_t bytes_for_each_byte = 32;
constexpr size_t bytes_for_messages = 16 << 10;

struct Valid {
  Bytes bytes;
  size_t head;  ///< bytes before the data
};

/// A value of every type, and three tensors.
Valid every_type() {
  Bytes b;
  b.header(3, 3, 15);
  b.key("u8", 0).u8(1).key("i8", 1).u8(0xff).key("u16", 2).number<uint16_t>(2).key("i16", 3).number<int16_t>(-2);
  b.key("u32", 4).u32(3).key("i32", 5).number<int32_t>(-3).key("f32", 6).number(0.5f).key("bool", 7).u8(1);
  b.key("string", 8).text("text").key("u64", 10).u64(4).key("i64", 11).number<int64_t>(-4).key("f64", 12).number(0.25);
  b.key("strings", 9).u32(8).u64(2).text("").text("piece");
  b.key("nested", 9).u32(9).u64(1).u32(4).u64(2).u32(5).u32(6);
  b.key("general.alignment", 4).u32(32);
  b.tensor("norm", {4}, 0, 0).tensor("matrix", {32, 2}, 2, 32).tensor("half", {2, 2, 2, 2}, 1, 96);
  b.pad(32);
  const size_t head = b.size();
  return {b.zeros(96 + 32), head};
}

/// Opens, or is refused in one line; touches what was opened. Returns whether it opened.
bool opens_or_is_refused(std::span<const std::byte> bytes) {
  const AllocationWatch watch;
  bool opened = false;
  volatile unsigned sum = 0;
  try {
    const ModelFile model = read_gguf(bytes, "tiny.gguf");
    for (const StoredTensor& tensor : model.tensors) {
      for (const std::byte byte : tensor.data) sum = sum + static_cast<unsigned>(byte);
    }
    opened = true;
  } catch (const Error& error) {
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
  }
  EXPECT_LE(watch.peak(), bytes_for_each_byte * bytes.size() + bytes_for_messages);
  return opened;
}

TEST(GgufDamage, TheFileIsSoundToBeginWith) {
  EXPECT_TRUE(opens_or_is_refused(every_type().bytes));
}

TEST(GgufDamage, CutOffAtEveryByteIsRefused) {
  const Valid valid = every_type();
  for (size_t size = 0; size < valid.bytes.size(); ++size) {
    // A copy of its own, so that a sanitizer sees a read beyond the end.
    const std::vector<std::byte> cut(std::span<const std::byte>(valid.bytes).begin(),
                                     std::span<const std::byte>(valid.bytes).begin() + static_cast<ptrdiff_t>(size));
    ASSERT_FALSE(opens_or_is_refused(cut)) << "at byte " << size;
  }
}

TEST(GgufDamage, EveryValueOfEveryByteOpensOrIsRefused) {
  Valid valid = every_type();
  for (size_t place = 0; place < valid.head; ++place) {
    const std::byte right = valid.bytes[place];
    for (unsigned value = kSanitized ? place % 5 : 0; value < 256; value += kSanitized ? 5 : 1) {
      valid.bytes[place] = static_cast<std::byte>(value);
      opens_or_is_refused(valid.bytes);
      ASSERT_FALSE(testing::Test::HasFailure()) << "byte " << place << " set to " << value;
    }
    valid.bytes[place] = right;
  }
}

TEST(GgufDamage, EightBytesOfOnesAnywhereOpenOrAreRefused) {
  Valid valid = every_type();
  for (size_t place = 0; place + 8 <= valid.head; ++place) {
    Bytes bytes = valid.bytes;
    for (size_t i = 0; i < 8; ++i) bytes[place + i] = std::byte{0xff};
    opens_or_is_refused(bytes);
    ASSERT_FALSE(testing::Test::HasFailure()) << "at byte " << place;
  }
}

TEST(GgufDamage, ManyTinyThingsTakeASmallMultiple) {
  constexpr uint32_t many = 50000;
  Bytes keys, strings, bools, arrays, tensors;
  keys.header(3, 0, many);
  for (uint32_t i = 0; i < many; ++i) keys.u64(2).number(static_cast<uint16_t>(i)).u32(0).u8(0);
  strings.header(3, 0, 1).key("strings", 9).u32(8).u64(many).zeros(many * 8);
  bools.header(3, 0, 1).key("bools", 9).u32(7).u64(many).zeros(many);
  arrays.header(3, 0, 1).key("arrays", 9).u32(9).u64(many);
  for (uint32_t i = 0; i < many; ++i) arrays.u32(0).u64(0);
  tensors.header(3, many, 0);
  for (uint32_t i = 0; i < many; ++i) tensors.u64(4).u32(i).u32(1).u64(1).u32(0).u64(uint64_t{32} * i);
  tensors.pad(32).zeros(uint64_t{32} * many);
  for (const Bytes* bytes : {&keys, &strings, &bools, &arrays, &tensors}) EXPECT_TRUE(opens_or_is_refused(*bytes));
}

TEST(GgufDamage, ASparseFileProvesNoCount) {
  const TemporaryFolder folder;
  const std::string path = folder.file("sparse.gguf");
  save(path, Bytes().header(3, 0, 1).key("strings", 9).u32(8).u64(100'000'000));
  std::filesystem::resize_file(path, uint64_t{4} << 30);
  const AllocationWatch watch;
  EXPECT_NE(error_of([&] { (void)open_model(path); }).find("no model needs more"), std::string::npos);
  EXPECT_LE(watch.peak(), bytes_for_messages);
}

}  // namespace
}  // namespace contexture
