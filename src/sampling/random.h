#pragma once

#include <cstdint>

namespace contexture {

/// What a number is drawn for beside the choice itself, whose numbers are those of std::mt19937_64.
enum class Purpose : uint64_t { xtc = 1 };

/// A number in [0, 1) that depends on the seed, on which choice of the text it is for, and on what for; not on what was
/// drawn before. (The finaliser of SplitMix64, chained.)
inline double random_number(uint64_t seed, uint64_t choice, Purpose purpose) {
  uint64_t bits = 0;
  for (const uint64_t part : {seed, choice, static_cast<uint64_t>(purpose)}) {
    bits = (bits ^ part) + 0x9e3779b97f4a7c15;
    bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9;
    bits = (bits ^ (bits >> 27)) * 0x94d049bb133111eb;
    bits ^= bits >> 31;
  }
  return static_cast<double>(bits >> 11) * 0x1p-53;
}

}  // namespace contexture
