#include "base/processor.h"

#include "base/error.h"

namespace contexture {

void check_processor() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  for (const bool has : {__builtin_cpu_supports("avx2") != 0, __builtin_cpu_supports("fma") != 0}) {
    if (!has) fail("this processor lacks AVX2 or FMA; run it on one from 2013 or later");
  }
#endif
}

}  // namespace contexture
