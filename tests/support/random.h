#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <random>
#include <vector>

#include "tensor/float16.h"
#include "tensor/format.h"

namespace contexture {

/// Fresh random numbers for every run of a test, whose seed is printed: CONTEXTURE_TEST_SEED=N repeats a failure.
inline std::mt19937 fresh_random() {
  const char* given = std::getenv("CONTEXTURE_TEST_SEED");
  const uint32_t seed = given ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
  std::fprintf(stderr, "CONTEXTURE_TEST_SEED=%u\n", seed);
  return std::mt19937(seed);
}

/// Standard normal floats times `scale`.
inline std::vector<float> random_floats(std::mt19937& random, size_t count, float scale = 1) {
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& v : values) v = normal(random) * scale;
  return values;
}

/// Bytes that are `count` elements of any format: every bit of the quants random, scales and minima numbers of about
/// `scale` over the format's range.
inline std::vector<std::byte> random_weights(std::mt19937& random, Format format, size_t count, float scale = 1) {
  const FormatInfo& f = info(format);
  std::vector<std::byte> bytes(bytes_of(format, count));
  if (f.block == 1) {
    f.encode(random_floats(random, count, scale).data(), bytes.data(), count);
    return bytes;
  }
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  // Where each format keeps its f16 numbers, and the largest factor that multiplies them.
  struct Halves {
    std::vector<size_t> offsets;
    float range;
  };
  const auto halves_of = [](Format f) -> Halves {
    switch (f) {
      case Format::q8_0:
        return {{0}, 127};
      case Format::q4_0:
        return {{0}, 8};
      case Format::q4_1:
        return {{0, 2}, 8};
      case Format::q5_0:
        return {{0}, 16};
      case Format::q5_1:
        return {{0, 2}, 16};
      case Format::q4_k:
        return {{0, 2}, 63 * 8};
      case Format::q5_k:
        return {{0, 2}, 63 * 16};
      case Format::q6_k:
        return {{208}, 127 * 32};
      default:
        return {{}, 1};
    }
  };
  const Halves halves = halves_of(format);
  std::uniform_real_distribution<float> some(0.2f, 1.f);
  for (size_t block = 0; block < bytes.size(); block += f.block_bytes) {
    for (const size_t offset : halves.offsets) {
      const uint16_t half = f32_to_f16((random() % 2 ? 1.f : -1.f) * scale * some(random) / halves.range);
      bytes[block + offset] = static_cast<std::byte>(half & 255);
      bytes[block + offset + 1] = static_cast<std::byte>(half >> 8);
    }
  }
  return bytes;
}

}  // namespace contexture
