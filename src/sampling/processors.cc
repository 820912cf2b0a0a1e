#include "sampling/processor.h"

namespace contexture {

extern const Processor kMask, kLogitBias, kPenalties, kDry, kTopNSigma, kTopK, kTypicalP, kTopP, kMinP, kXtc;

std::span<const Processor* const> processors() {
  // llama.cpp's order. Temperature comes after all of these, with the draw (sampler.cc), and so does Mirostat.
  static constexpr const Processor* list[] = {&kMask, &kLogitBias, &kPenalties, &kDry,  &kTopNSigma,
                                              &kTopK, &kTypicalP,  &kTopP,      &kMinP, &kXtc};
  return list;
}

}  // namespace contexture
