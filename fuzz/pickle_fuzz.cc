// Any bytes as a pickle: it loads or it throws Error. What loaded is walked through, every value once.

#include <cstdint>

#include "base/error.h"
#include "files/pickle.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace contexture;
  try {
    const Pickle pickle({data, data + size}, "fuzz");
    (void)pickle.find(pickle.root(), "model");
    for (const uint32_t item : pickle.root().items) {
      const PickleValue& value = pickle.at(item);
      for (const char c : value.text) {
        if (&c < value.text.data()) __builtin_trap();
      }
      for (const uint32_t inner : value.items) (void)pickle.find(pickle.at(inner), "x");
    }
  } catch (const Error&) {
  }
  return 0;
}
