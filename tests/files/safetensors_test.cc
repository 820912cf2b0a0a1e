#include "files/safetensors.h"

#include <gmock/gmock.h>

#include "files/huggingface_support.h"
#include "support/allocations.h"
#include "support/sanitized.h"

namespace contexture {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

/// A file of which only the header matters.
Bytes with_header(std::string_view header, size_t data) {
  return Bytes().u64(header.size()).raw(header).zeros(data);
}

std::string safetensors_error(std::span<const std::byte> bytes) {
  return error_of([&] { (void)read_safetensors(bytes, "m.safetensors"); });
}

Bytes small_file() {
  return safetensors({counting("a", {2, 3}, 10), counting("b", {1}, 20), {"half", {2}, {4, std::byte{1}}, "BF16"}});
}

TEST(Safetensors, FindsEveryTensorInItsPlace) {
  const Bytes bytes = small_file();
  EXPECT_TRUE(is_safetensors(bytes));
  const SafeTensors tensors = read_safetensors(bytes, "m.safetensors");
  EXPECT_EQ(tensors.size(), 3u);
  EXPECT_THAT(tensors.at("a").shape, ElementsAre(2, 3));
  EXPECT_EQ(tensors.at("a").dtype, "F32");
  EXPECT_EQ(std::memcmp(tensors.at("a").data.data(), counting("", {6}, 10).data.data(), 24), 0);
  EXPECT_EQ(std::memcmp(tensors.at("b").data.data(), counting("", {1}, 20).data.data(), 4), 0);
  EXPECT_EQ(tensors.at("half").data.size(), 4u);
  const std::span<const std::byte> all = bytes;
  EXPECT_EQ(tensors.at("half").data.data() + 4, all.data() + all.size());
}

TEST(Safetensors, TensorsOfOurFormatsBecomeStored) {
  const Bytes bytes = small_file();
  const SafeTensors tensors = read_safetensors(bytes, "m.safetensors");
  const StoredTensor a = to_stored(tensors.at("a"), "output.weight", "m: a");
  EXPECT_EQ(a.name, "output.weight");
  EXPECT_EQ(a.format, Format::f32);
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_EQ(to_stored(tensors.at("half"), "x", "").format, Format::bf16);
}

TEST(Safetensors, RefusesToPresentWhatNoWeightIs) {
  const auto error = [](std::vector<int64_t> shape, size_t bytes, std::string dtype) {
    const std::vector<std::byte> data(bytes);
    return error_of([&] { (void)to_stored({std::move(dtype), std::move(shape), data}, "t", "m: tensor t"); });
  };
  EXPECT_EQ(error({2}, 4, "F16"), "");
  EXPECT_THAT(error({2}, 2, "F8_E4M3"), AllOf(HasSubstr("m: tensor t"), HasSubstr("F8_E4M3"), HasSubstr("BF16")));
  EXPECT_THAT(error({2}, 8, "I32"), HasSubstr("I32"));
  EXPECT_THAT(error({}, 4, "F32"), HasSubstr("dimensions"));
  EXPECT_THAT(error({0, 2}, 0, "F32"), HasSubstr("dimensions"));
  EXPECT_THAT(error({1, 1, 1, 1, 1}, 4, "F32"), HasSubstr("dimensions"));
}

TEST(Safetensors, RefusesUnalignedTensors) {
  // A header of 63 bytes, and so data at byte 71.
  const Bytes bytes = with_header(R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}         )", 8);
  const SafeTensors tensors = read_safetensors(bytes, "m.safetensors");
  EXPECT_THAT(error_of([&] { (void)to_stored(tensors.at("t"), "t", "m: tensor t"); }), HasSubstr("multiple"));
}

TEST(Safetensors, RefusesWhatContradictsItself) {
  const auto error = [](std::string_view entry, size_t data = 8) {
    return safetensors_error(with_header(fmt::format(R"({{"t":{}}})", entry), data));
  };
  EXPECT_EQ(error(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})"), "");
  EXPECT_EQ(error(R"({"dtype":"F4","shape":[16],"data_offsets":[0,8]})"), "");  // refused where it is needed
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})"),
              AllOf(HasSubstr("m.safetensors: tensor t"), HasSubstr("8 bytes"), HasSubstr("contradict")));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[4,12]})"), HasSubstr("4 to 12 of 8"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})"), HasSubstr("8 to 0"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[0]})"), HasSubstr("data_offsets"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2],"data_offsets":[-8,0]})"), HasSubstr("data_offsets"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[2.0],"data_offsets":[0,8]})"), HasSubstr("shape"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})"), HasSubstr("shape"));
  EXPECT_THAT(error(R"({"dtype":"F32","data_offsets":[0,8]})"), HasSubstr("shape"));
  EXPECT_THAT(error(R"({"dtype":32,"shape":[2],"data_offsets":[0,8]})"), HasSubstr("dtype"));
  EXPECT_THAT(error("7"), HasSubstr("object"));
  // 2^32 · 2^32 · 4 bytes are none, if one forgets to look; so are 2^63 of them.
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]})"),
              HasSubstr("contradict"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[9223372036854775808],"data_offsets":[0,0]})"), HasSubstr("absurd"));
  EXPECT_THAT(error(R"({"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,8]})"), HasSubstr("shape"));
}

TEST(Safetensors, RefusesOverlaps) {
  EXPECT_THAT(safetensors_error(with_header(R"({"a":{"dtype":"F16","shape":[4],"data_offsets":[0,8]},)"
                                            R"("b":{"dtype":"F16","shape":[1],"data_offsets":[6,8]}})",
                                            8)),
              HasSubstr("a and b overlap"));
}

TEST(Safetensors, RefusesOtherFiles) {
  EXPECT_FALSE(is_safetensors(Bytes().raw("GGUF").zeros(20)));
  EXPECT_FALSE(is_safetensors({}));
  EXPECT_FALSE(is_safetensors(Bytes().u64(100'000'001).raw("{}")));
  EXPECT_THAT(safetensors_error(Bytes().u64(100'000'001).raw("{}")), HasSubstr("no safetensors"));
  EXPECT_THAT(safetensors_error(Bytes().u64(UINT64_MAX).raw("{}")), HasSubstr("no safetensors"));
  EXPECT_THAT(safetensors_error(Bytes().u64(3).raw("{}")), HasSubstr("cut off"));
  EXPECT_THAT(safetensors_error(Bytes().u64(2).raw("{!")), HasSubstr("not JSON"));
}

/// Opens, or is refused in one line; touches what was opened. Returns whether it opened.
bool safetensors_opens_or_is_refused(std::span<const std::byte> bytes) {
  const AllocationWatch watch;
  bool opened = false;
  volatile unsigned sum = 0;
  try {
    for (const auto& [name, tensor] : read_safetensors(bytes, "m.safetensors")) {
      for (const std::byte byte : tensor.data) sum = sum + static_cast<unsigned>(byte);
    }
    opened = true;
  } catch (const Error& error) {
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos);
  }
  EXPECT_LE(watch.peak(), 64 * bytes.size() + (16 << 10));
  return opened;
}

TEST(SafetensorsDamage, CutOffAtEveryByteIsRefused) {
  const Bytes whole = small_file();
  const std::span<const std::byte> bytes = whole;
  ASSERT_TRUE(safetensors_opens_or_is_refused(bytes));
  for (size_t size = 0; size < bytes.size(); ++size) {
    const std::vector<std::byte> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    ASSERT_FALSE(safetensors_opens_or_is_refused(cut)) << "at byte " << size;
  }
}

TEST(SafetensorsDamage, EveryValueOfEveryByteOpensOrIsRefused) {
  Bytes bytes = small_file();
  for (size_t place = 0; place < bytes.size(); ++place) {
    const std::byte right = bytes[place];
    for (unsigned value = kSanitized ? place % 5 : 0; value < 256; value += kSanitized ? 5 : 1) {
      bytes[place] = static_cast<std::byte>(value);
      safetensors_opens_or_is_refused(bytes);
      ASSERT_FALSE(HasFailure()) << "byte " << place << " set to " << value;
    }
    bytes[place] = right;
  }
}

TEST(SafetensorsDamage, ManyTinyThingsTakeASmallMultiple) {
  std::string lists = "{\"t\":[", names = "{";
  for (int i = 0; i < 50000; ++i) lists += i ? ",[]" : "[]";
  for (int i = 0; i < 20000; ++i) names += fmt::format("{}\"{}\":0", i ? "," : "", i);
  EXPECT_FALSE(safetensors_opens_or_is_refused(with_header(lists + "]}", 0)));
  EXPECT_FALSE(safetensors_opens_or_is_refused(with_header(names + "}", 0)));
  EXPECT_FALSE(safetensors_opens_or_is_refused(with_header("{" + std::string(100000, '['), 0)));
}

}  // namespace
}  // namespace contexture
