// Buffers of K and V against a list of tokens: what a graph would read in its window must be what was written, whatever
// lies in the columns that hold no token.

#include "backends/static_graph/fixed_kv.h"

#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <vector>

#include "backends/static_graph/attention_mask.h"
#include "contexture/error.h"

namespace contexture {
namespace {

/// Stands for compiled graphs: writes numbers of its own for every new token and looks every held one up again.
class Graphs {
 public:
  Graphs(const FixedKvShape& shape, KvUpdate update) : kv_(shape, update), memory_(kv_.bytes()), random_(7) {
    for (std::byte& b : memory_) b = garbage();
    kv_.attach(memory_.data());
  }

  FixedKv& kv() { return kv_; }

  /// A graph of `tokens` tokens, `count` of which are real, the rest padding.
  void execute(size_t tokens, size_t count) {
    if (kv_.tokens() != tokens) kv_.arrange(tokens);
    poison();
    read();
    write(count);
    read();  // outputs lie within no window
    kv_.append(count);
  }

  void prompt(size_t length) {
    const FixedKvShape& s = kv_.shape();
    while (length > 0) {
      const size_t count = std::min(length, s.chunk);
      if (kv_.length() + count <= s.context - s.chunk) {
        execute(s.chunk, count);
        length -= count;
      } else {
        execute(s.step, 1);
        --length;
      }
    }
  }

  /// Every token that is held, where the next graph of `tokens` tokens reads it.
  void check(size_t tokens) {
    if (kv_.tokens() != tokens) kv_.arrange(tokens);
    poison();
    read();
  }

 private:
  std::byte garbage() { return static_cast<std::byte>(random_()); }

  /// Of the (layer, head, channel) of a token, in as many bytes as an element has.
  uint32_t number(bool is_v, size_t layer, size_t head, size_t channel, size_t token) const {
    uint64_t h = (((layer * 31 + head) * 67 + channel) * 1031 + token) * 2 + (is_v ? 1 : 0);
    h = (h ^ 0x5bd1e995) * 0x9e3779b97f4a7c15ull;
    const uint32_t x = static_cast<uint32_t>(h >> 32);
    return kv_.shape().element_bytes == 4 ? x : x & ((1u << (8 * kv_.shape().element_bytes)) - 1);
  }

  std::byte* at(size_t base, size_t element) { return memory_.data() + base + element * kv_.shape().element_bytes; }

  uint32_t get(size_t base, size_t element) {
    uint32_t x = 0;
    std::memcpy(&x, at(base, element), kv_.shape().element_bytes);
    return x;
  }

  template <class Body>
  void for_each_channel(const Body& body) {
    const FixedKvShape& s = kv_.shape();
    for (size_t layer = 0; layer < s.layers; ++layer) {
      for (size_t head = 0; head < s.heads; ++head) {
        for (size_t d = 0; d < s.head_dim; ++d) body(layer, head, d);
      }
    }
  }

  void poison() {
    const FixedKvShape& s = kv_.shape();
    const auto [first, last] = kv_.visible();
    for_each_channel([&, first = first, last = last](size_t layer, size_t head, size_t d) {
      const size_t tensor = s.per_head ? head : 0, inner = s.per_head ? 0 : head;
      for (size_t c = 0; c < kv_.window(); ++c) {
        if (c >= first && c < last) continue;
        for (size_t b = 0; b < s.element_bytes; ++b) {
          at(kv_.k_in(layer, tensor), (inner * s.head_dim + d) * kv_.window() + c)[b] = garbage();
          at(kv_.v_in(layer, tensor), (inner * kv_.window() + c) * s.head_dim + d)[b] = garbage();
        }
      }
    });
  }

  void read() {
    const FixedKvShape& s = kv_.shape();
    const auto [first, last] = kv_.visible();
    ASSERT_EQ(last - first, kv_.length());
    size_t wrong = 0;
    for_each_channel([&, first = first, last = last](size_t layer, size_t head, size_t d) {
      const size_t tensor = s.per_head ? head : 0, inner = s.per_head ? 0 : head;
      for (size_t c = first; c < last; ++c) {
        wrong += get(kv_.k_in(layer, tensor), (inner * s.head_dim + d) * kv_.window() + c) !=
                 number(false, layer, head, d, c - first);
        wrong += get(kv_.v_in(layer, tensor), (inner * kv_.window() + c) * s.head_dim + d) !=
                 number(true, layer, head, d, c - first);
      }
    });
    EXPECT_EQ(wrong, 0u) << "at length " << kv_.length() << " of a window of " << kv_.window();
  }

  void write(size_t count) {
    const FixedKvShape& s = kv_.shape();
    const size_t tokens = kv_.tokens();
    for_each_channel([&](size_t layer, size_t head, size_t d) {
      const size_t tensor = s.per_head ? head : 0, inner = s.per_head ? 0 : head;
      for (size_t i = 0; i < tokens; ++i) {
        uint32_t k = static_cast<uint32_t>(random_()), v = static_cast<uint32_t>(random_());  // of padding
        if (i < count) k = number(false, layer, head, d, kv_.length() + i);
        if (i < count) v = number(true, layer, head, d, kv_.length() + i);
        std::memcpy(at(kv_.k_out(layer, tensor), (inner * s.head_dim + d) * tokens + i), &k, s.element_bytes);
        std::memcpy(at(kv_.v_out(layer, tensor), (inner * tokens + i) * s.head_dim + d), &v, s.element_bytes);
      }
    });
  }

  FixedKv kv_;
  std::vector<std::byte> memory_;  // of exactly bytes(): the address sanitizer watches its ends
  std::mt19937 random_;
};

struct Case {
  KvUpdate update;
  bool per_head;
  size_t element_bytes;
};

constexpr Case kCases[] = {{KvUpdate::smart_mask, true, 1},    {KvUpdate::smart_mask, true, 2},
                           {KvUpdate::smart_mask, false, 1},   {KvUpdate::smart_mask, false, 4},
                           {KvUpdate::shift_pointer, true, 1}, {KvUpdate::shift_pointer, true, 2},
                           {KvUpdate::shift_pointer, true, 4}};

FixedKvShape shape_of(const Case& c) {
  return {.layers = 2,
          .heads = 3,
          .head_dim = 4,
          .context = 512,
          .chunk = 32,
          .step = 1,
          .element_bytes = c.element_bytes,
          .per_head = c.per_head};
}

TEST(FixedKv, PromptsOfEveryLengthThenDecode) {
  for (const Case& c : kCases) {
    for (const size_t length : {1, 31, 32, 33, 479, 480, 481, 511}) {
      SCOPED_TRACE(testing::Message() << name(c.update) << (c.per_head ? " per head" : " per layer") << ", "
                                      << c.element_bytes << " bytes, prompt " << length);
      Graphs graphs(shape_of(c), c.update);
      graphs.prompt(length);
      ASSERT_EQ(graphs.kv().length(), length);
      for (size_t i = 0; i < 4 && graphs.kv().length() < 511; ++i) graphs.execute(1, 1);
      graphs.check(1);
    }
  }
}

TEST(FixedKv, WidensAndNarrowsAndWidens) {
  for (const Case& c : kCases) {
    for (const size_t length : {1, 100, 480}) {
      SCOPED_TRACE(testing::Message() << name(c.update) << ", " << c.element_bytes << " bytes, " << length);
      Graphs graphs(shape_of(c), c.update);
      graphs.prompt(length);
      for (const size_t tokens : {1, 32, 1, 32}) graphs.check(tokens);  // 511, 480, 511, 480 columns
    }
  }
}

TEST(FixedKv, TurnsGoOnWhereTheLastEnded) {
  for (const Case& c : kCases) {
    SCOPED_TRACE(testing::Message() << name(c.update) << ", " << c.element_bytes << " bytes");
    Graphs graphs(shape_of(c), c.update);
    for (const size_t turn : {40, 1, 33, 64}) {
      graphs.prompt(turn);
      for (size_t i = 0; i < 9; ++i) graphs.execute(1, 1);
    }
    ASSERT_EQ(graphs.kv().length(), 40u + 1 + 33 + 64 + 4 * 9);
    graphs.kv().truncate(70);  // a turn is taken back
    graphs.prompt(21);
    graphs.execute(1, 1);
    graphs.check(32);
    EXPECT_EQ(graphs.kv().length(), 92u);
  }
}

TEST(FixedKv, FillsWindowsToTheLastColumn) {
  for (const Case& c : kCases) {
    FixedKvShape shape = shape_of(c);
    for (const size_t chunk : {1, 7, 16, 63}) {
      SCOPED_TRACE(testing::Message() << name(c.update) << ", " << c.element_bytes << " bytes, A " << chunk);
      shape.context = 64;
      shape.chunk = chunk;
      Graphs graphs(shape, c.update);
      graphs.prompt(63);
      graphs.check(1);
      EXPECT_EQ(graphs.kv().length(), 63u);
    }
  }
}

/// The allocators' bytes of ExecuTorch's example for 16 layers, 8 heads of 64 channels, 8 bits, 512 tokens, chunks
/// of 32.
TEST(FixedKv, BytesAreTheAllocators) {
  const FixedKvShape shape = {.layers = 16, .heads = 8, .head_dim = 64, .context = 512, .chunk = 32};
  EXPECT_EQ(FixedKv(shape, KvUpdate::smart_mask).bytes(), 8'896'512u);
  EXPECT_EQ(FixedKv(shape, KvUpdate::shift_pointer).bytes(), 9'232'256u);
}

TEST(FixedKv, BytesMovedAStepAreTheFormulas) {
  const FixedKvShape shape = {.layers = 16, .heads = 8, .head_dim = 64, .context = 512, .chunk = 32};
  for (const KvUpdate update : {KvUpdate::smart_mask, KvUpdate::shift_pointer}) {
    FixedKv kv(shape, update);
    std::vector<std::byte> memory(kv.bytes());
    kv.attach(memory.data());
    kv.append(32);
    EXPECT_EQ(kv.moved().k, 16u * 8 * 64 * 32);
    EXPECT_EQ(kv.moved().rearranged, 0u);
    kv.arrange(1);
    const size_t before = kv.moved().k;
    kv.append(1);
    EXPECT_EQ(kv.moved().k - before, 16u * 8 * 64);
    EXPECT_EQ(kv.moved().v, update == KvUpdate::smart_mask ? 16u * 8 * 64 * 33 : 0u);
    // Of a smart mask's K, the first row of a head stays; V stays in either.
    EXPECT_EQ(kv.moved().rearranged, 16u * 8 * (update == KvUpdate::smart_mask ? 63 : 64) * 32);
  }
}

TEST(FixedKv, APrefillGraphAloneHasNoCache) {
  const FixedKvShape shape = {.layers = 2, .heads = 2, .head_dim = 4, .context = 64, .chunk = 64, .step = 64};
  for (const KvUpdate update : {KvUpdate::smart_mask, KvUpdate::shift_pointer}) {
    EXPECT_EQ(FixedKv(shape, update).bytes(), 2u * 2 * (2 * 4 * 64));
  }
}

TEST(FixedKv, ShiftPointerNeedsATensorAHead) {
  FixedKvShape shape = {.layers = 1, .heads = 2, .head_dim = 4, .context = 64, .chunk = 8};
  shape.per_head = false;
  EXPECT_THROW(FixedKv(shape, KvUpdate::shift_pointer), Error);
}

cxg_tensor mask_tensor(uint32_t type, float scale, int32_t offset) {
  return {.id = 0, .name = "atten_mask", .type = type, .rank = 0, .dims = nullptr, .scale = scale, .offset = offset};
}

TEST(AttentionMask, IsCausalInTheChunkAndOpenWhereTokensAre) {
  const AttentionMask mask(mask_tensor(CXG_UFIXED_16, 255.0f / 65535, -65535));
  ASSERT_EQ(mask.element_bytes(), 2u);
  std::vector<uint16_t> m(3 * 8, 1);
  mask.fill(reinterpret_cast<std::byte*>(m.data()), 3, 8, {1, 3});
  const uint16_t o = 65535;
  EXPECT_EQ(m, (std::vector<uint16_t>{0, o, o, 0, 0, o, 0, 0,  //
                                      0, o, o, 0, 0, o, o, 0,  //
                                      0, o, o, 0, 0, o, o, o}));
  mask.show(reinterpret_cast<std::byte*>(m.data()), 3, 8, {3, 5});
  EXPECT_EQ(m[0], 0);
  EXPECT_EQ(m[3], o);
  EXPECT_EQ(m[8 + 4], o);
  EXPECT_EQ(m[8 + 7], 0);
}

TEST(AttentionMask, KnowsOtherEncodings) {
  std::vector<float> f(4);
  AttentionMask(mask_tensor(CXG_FLOAT_32, 0, 0)).fill(reinterpret_cast<std::byte*>(f.data()), 1, 4, {0, 1});
  EXPECT_EQ(f, (std::vector<float>{0, -65535, -65535, 0}));
  std::vector<uint8_t> b(2);
  AttentionMask(mask_tensor(CXG_UFIXED_8, 1, -200)).fill(reinterpret_cast<std::byte*>(b.data()), 1, 2, {0, 0});
  EXPECT_EQ(b, (std::vector<uint8_t>{0, 200}));
  EXPECT_THROW(AttentionMask(mask_tensor(CXG_UFIXED_16, 0.1f, 0)), Error);
  EXPECT_THROW(AttentionMask(mask_tensor(CXG_UFIXED_16, 0, -65535)), Error);
  EXPECT_THROW(AttentionMask(mask_tensor(CXG_UFIXED_16, 0.1f, -65536)), Error);
  EXPECT_THROW(AttentionMask(mask_tensor(CXG_INT_32, 0, 0)), Error);
}

}  // namespace
}  // namespace contexture
