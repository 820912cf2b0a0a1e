#include "files/gguf.h"

#include <gmock/gmock.h>

#include "files/support.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

// Types of metadata and of tensors, as the files number them.
constexpr uint32_t u8 = 0, u32 = 4, f32 = 6, boolean = 7, string = 8, array = 9, u64 = 10;
constexpr uint32_t ggml_f32 = 0, ggml_q4_0 = 2, ggml_iq4_xs = 23, ggml_i64 = 27;

std::string gguf_error(std::span<const std::byte> bytes) {
  const std::string message = error_of([&] { (void)read_gguf(bytes, "tiny.gguf"); });
  EXPECT_THAT(message, Not(HasSubstr("\n")));
  EXPECT_THAT(message, AnyOf(IsEmpty(), HasSubstr("tiny.gguf")));
  return message;
}

/// One metadata pair, then two tensors: (2, 3) of f32 and (64) of q4_0.
Bytes two_tensors(uint32_t version = 3) {
  Bytes bytes;
  bytes.header(version, 2, 1).key("general.name", string).text("tiny");
  bytes.tensor("a", {3, 2}, ggml_f32, 0).tensor("b", {64}, ggml_q4_0, 32);
  bytes.pad(32);
  for (int i = 0; i < 6; ++i) bytes.number(static_cast<float>(i));
  return bytes.pad(32).zeros(36);
}

/// The file of a single tensor, with 64 bytes of data.
Bytes one_tensor(const std::vector<uint64_t>& dimensions, uint32_t type, uint64_t offset) {
  return Bytes().header(3, 1, 0).tensor("t", dimensions, type, offset).pad(32).zeros(64);
}

class GgufVersion : public testing::TestWithParam<uint32_t> {};
INSTANTIATE_TEST_SUITE_P(, GgufVersion, testing::Values(2, 3));

TEST_P(GgufVersion, Opens) {
  const Bytes bytes = two_tensors(GetParam());
  const ModelFile model = read_gguf(bytes, "tiny.gguf");
  EXPECT_EQ(model.kind, fmt::format("GGUF v{}", GetParam()));
  EXPECT_EQ(model.metadata.get_string("general.name"), "tiny");
  ASSERT_EQ(model.tensors.size(), 2u);

  const StoredTensor* a = model.find("a");
  ASSERT_TRUE(a);
  EXPECT_EQ(a->format, Format::f32);
  EXPECT_THAT(a->shape, ElementsAre(2, 3));  // the file has the innermost first
  ASSERT_EQ(a->data.size(), 24u);
  float last;
  std::memcpy(&last, a->data.data() + 20, sizeof(last));
  EXPECT_EQ(last, 5.0f);

  const StoredTensor* b = model.find("b");
  ASSERT_TRUE(b);
  EXPECT_EQ(b->format, Format::q4_0);
  EXPECT_THAT(b->shape, ElementsAre(64));
  EXPECT_EQ(b->data.size(), 36u);
  EXPECT_EQ(model.find("c"), nullptr);
}

TEST(Gguf, OpensAFileOfNothingButAHeader) {
  EXPECT_EQ(read_gguf(Bytes().header(3, 0, 0), "tiny.gguf").tensors.size(), 0u);
}

TEST(Gguf, OpensATensorThatEndsWithTheFile) {
  EXPECT_EQ(gguf_error(Bytes().header(3, 1, 0).tensor("t", {4}, ggml_f32, 0).pad(32).zeros(16)), "");
}

TEST(Gguf, RefusesAnotherMagic) {
  Bytes bytes = two_tensors();
  bytes[3] = std::byte{'X'};
  EXPECT_THAT(gguf_error(bytes), HasSubstr("no GGUF file"));
}

TEST(Gguf, RefusesOtherVersionsByNumber) {
  EXPECT_THAT(gguf_error(Bytes().header(1, 0, 0)), HasSubstr("version 1 is not supported"));
  EXPECT_THAT(gguf_error(Bytes().header(4, 0, 0)), HasSubstr("version 4 is not supported"));
}

TEST(Gguf, RefusesBigEndianByName) {
  EXPECT_THAT(gguf_error(Bytes().header(__builtin_bswap32(3), 0, 0)), HasSubstr("big-endian"));
}

TEST(Gguf, RefusesAbsurdCounts) {
  EXPECT_THAT(gguf_error(Bytes().header(3, UINT64_MAX, 0)),
              HasSubstr("the list of tensors wants 18446744073709551615 items"));
  EXPECT_THAT(gguf_error(Bytes().header(3, 1u << 30, 0)), HasSubstr("1073741824"));
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, UINT64_MAX)), HasSubstr("the metadata wants 18446744073709551615 items"));
}

TEST(Gguf, RefusesAbsurdLengthsOfStringsAndArrays) {
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).u64(UINT64_MAX).zeros(32)),
              HasSubstr("cut off or damaged: the metadata wants 18446744073709551615 bytes"));
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("name", string).u64(UINT64_MAX)), HasSubstr("metadata key name"));
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("ids", array).u32(u64).u64(UINT64_MAX / 8).zeros(64)),
              AllOf(HasSubstr("metadata key ids"), HasSubstr("2305843009213693951")));
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("names", array).u32(string).u64(9).zeros(64)),
              HasSubstr("metadata key names"));
}

TEST(Gguf, RefusesUnknownTypesOfMetadata) {
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("odd", 13).zeros(8)), HasSubstr("metadata key odd has type 13"));
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("odd", array).u32(99).zeros(8)), HasSubstr("odd has type 99"));
}

TEST(Gguf, RefusesABoolThatIsNeither) {
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("tied", boolean).u8(2)), HasSubstr("tied is a bool of value 2"));
}

TEST(Gguf, RefusesADuplicateKey) {
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 2).key("layers", u8).u8(1).key("layers", u8).u8(1)),
              AllOf(HasSubstr("layers"), HasSubstr("twice")));
}

TEST(Gguf, RefusesDeeplyNestedArrays) {
  Bytes nested;
  nested.header(3, 0, 1).key("deep", array);
  for (int depth = 0; depth < 10000; ++depth) nested.u32(array).u64(1);
  EXPECT_THAT(gguf_error(nested.u32(u8).u64(0)), AllOf(HasSubstr("deep"), HasSubstr("nests")));
}

TEST(Gguf, KeepsStrangersTextOnOneLine) {
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("a\nb\x1b[31m", 13).zeros(8)), HasSubstr("a?b?[31m"));
}

TEST(Gguf, AlignsAsTheFileSays) {
  const Bytes bytes = Bytes()
                          .header(3, 1, 1)
                          .key("general.alignment", u32)
                          .u32(128)
                          .tensor("t", {1}, ggml_f32, 0)
                          .pad(128)
                          .number(2.5f);
  const ModelFile model = read_gguf(bytes, "tiny.gguf");
  float value;
  std::memcpy(&value, model.tensors[0].data.data(), sizeof(value));
  EXPECT_EQ(value, 2.5f);
}

TEST(Gguf, RefusesAnUnusableAlignment) {
  for (const uint32_t alignment : {0u, 1u, 4u, 24u, 1u << 31}) {
    EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("general.alignment", u32).u32(alignment)),
                AllOf(HasSubstr("general.alignment"), HasSubstr(std::to_string(alignment))));
  }
  EXPECT_THAT(gguf_error(Bytes().header(3, 0, 1).key("general.alignment", f32).u32(0)), HasSubstr("general.alignment"));
}

TEST(Gguf, RefusesAnUnknownTensorTypeByName) {
  EXPECT_THAT(gguf_error(one_tensor({32}, ggml_iq4_xs, 0)),
              AllOf(HasSubstr("tensor t"), HasSubstr("23 (IQ4_XS)"), HasSubstr("q4_k")));
  EXPECT_THAT(gguf_error(one_tensor({32}, 4711, 0)), HasSubstr("type 4711, which is not supported"));
  const Bytes integers = one_tensor({8}, ggml_i64, 0);
  EXPECT_THAT(gguf_error(integers), HasSubstr("27 (I64)")) << "no model has them";
  const ModelFile trace = read_gguf(integers, "tiny.gguf", {.with_integers = true});
  EXPECT_EQ(trace.find("t")->format, Format::i64);
  EXPECT_EQ(trace.find("t")->data.size(), 64u);
}

TEST(Gguf, RefusesWrongNumbersOfDimensions) {
  EXPECT_THAT(gguf_error(one_tensor({}, ggml_f32, 0)), HasSubstr("tensor t has 0 dimensions"));
  EXPECT_THAT(gguf_error(one_tensor({1, 1, 1, 1, 1}, ggml_f32, 0)), HasSubstr("tensor t has 5 dimensions"));
  EXPECT_EQ(gguf_error(one_tensor({1, 2, 2, 2}, ggml_f32, 0)), "");
}

TEST(Gguf, OuterDimensionsOfOneAreDropped) {
  const auto shape = [](const std::vector<uint64_t>& dimensions, const GgufUse& use = {}) {
    return read_gguf(one_tensor(dimensions, ggml_f32, 0), "tiny.gguf", use).tensors[0].shape;
  };
  EXPECT_THAT(shape({8, 1}), ElementsAre(8));
  EXPECT_THAT(shape({4, 4, 1, 1}), ElementsAre(4, 4));
  EXPECT_THAT(shape({4, 1, 4, 1}), ElementsAre(4, 1, 4));
  EXPECT_THAT(shape({1, 1, 1, 1}), ElementsAre(1));
  EXPECT_THAT(shape({1, 8}), ElementsAre(8, 1)) << "a column stays one";
  EXPECT_THAT(shape({8, 1}, {.with_integers = true}), ElementsAre(1, 8)) << "a trace's dimensions are as they are";
}

TEST(Gguf, RefusesAbsurdDimensions) {
  EXPECT_THAT(gguf_error(one_tensor({0}, ggml_f32, 0)), HasSubstr("dimension of size 0"));
  EXPECT_THAT(gguf_error(one_tensor({UINT64_MAX}, ggml_f32, 0)), HasSubstr("dimension of size 18446744073709551615"));
  EXPECT_THAT(gguf_error(one_tensor({1u << 31, 1u << 31, 1u << 31}, ggml_f32, 0)), HasSubstr("absurd size"));
  EXPECT_THAT(gguf_error(one_tensor({uint64_t{1} << 62}, ggml_f32, 0)), HasSubstr("absurd size"));
  // Elements of 2^64 and more that take fewer bytes than that.
  EXPECT_THAT(gguf_error(one_tensor({uint64_t{1} << 32, uint64_t{1} << 32}, ggml_q4_0, 0)), HasSubstr("bytes of data"));
}

TEST(Gguf, RefusesRowsOfBrokenBlocks) {
  EXPECT_THAT(gguf_error(one_tensor({48}, ggml_q4_0, 0)),
              HasSubstr("rows of 48 elements, but q4_0 comes in blocks of 32"));
  EXPECT_THAT(gguf_error(one_tensor({16, 2}, ggml_q4_0, 0)), HasSubstr("rows of 16"));
}

TEST(Gguf, RefusesOffsetsBeyondTheFile) {
  EXPECT_THAT(gguf_error(one_tensor({4}, ggml_f32, 96)), HasSubstr("wants 16 bytes at offset 96"));
  EXPECT_THAT(gguf_error(one_tensor({4}, ggml_f32, UINT64_MAX - 31)), HasSubstr("offset 18446744073709551584"));
  EXPECT_THAT(gguf_error(one_tensor({17}, ggml_f32, 0)), HasSubstr("wants 68 bytes at offset 0"));
}

TEST(Gguf, RefusesUnalignedTensors) {
  EXPECT_THAT(gguf_error(one_tensor({4}, ggml_f32, 16)), HasSubstr("offset 16, which is not a multiple of 32"));
}

TEST(Gguf, RefusesOverlappingTensors) {
  const auto overlap = [](uint64_t first, uint64_t second) {
    Bytes bytes;
    bytes.header(3, 2, 0).tensor("a", {9}, ggml_f32, first).tensor("b", {1}, ggml_f32, second);
    return gguf_error(bytes.pad(32).zeros(128));
  };
  EXPECT_THAT(overlap(0, 32), HasSubstr("tensors a and b overlap"));
  EXPECT_THAT(overlap(32, 32), HasSubstr("overlap"));
  EXPECT_EQ(overlap(0, 64), "");
  EXPECT_EQ(overlap(32, 0), "");
}

TEST(Gguf, RefusesADuplicateTensor) {
  Bytes bytes;
  bytes.header(3, 2, 0).tensor("t", {1}, ggml_f32, 0).tensor("t", {1}, ggml_f32, 32).pad(32).zeros(64);
  EXPECT_THAT(gguf_error(bytes), HasSubstr("tensor t is there twice"));
}

}  // namespace
}  // namespace contexture
