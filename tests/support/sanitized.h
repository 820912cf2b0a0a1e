#pragma once

#include <cstddef>

namespace contexture {

/// Under sanitizers everything takes some ten times as long: there tests look for wrong memory and races, with fewer
/// cases and smaller sizes; that values are right is for the whole grid without them.
#if defined(CONTEXTURE_SANITIZES_ADDRESSES) || defined(CONTEXTURE_SANITIZES_THREADS)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif

/// Only races are looked for: what runs the same loops over threads as another test need not run.
#if defined(CONTEXTURE_SANITIZES_THREADS)
inline constexpr bool kThreadSanitized = true;
#else
inline constexpr bool kThreadSanitized = false;
#endif

/// So many random cases, or so long a text; a tenth of it under sanitizers.
constexpr size_t sized(size_t count) {
  return kSanitized ? (count + 9) / 10 : count;
}

}  // namespace contexture
