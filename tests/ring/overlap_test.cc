// Communication hides behind attention where the paper's equations say so: over ranks whose network is slowed down.

#include "backends/ring/overlap.h"

#include <gtest/gtest.h>

#include "support/sanitized.h"

namespace contexture {
namespace {

void print(const OverlapCase& slow, const Overlap& measured, const Overlap& predicted) {
  std::fprintf(stderr, "%s, %zu new, %zu cached: %.2f ms in flight, %.2f exposed, %.2f predicted\n", name(slow.pass),
               slow.new_tokens, slow.cached_tokens, 1e3 * measured.in_flight, 1e3 * measured.exposed,
               1e3 * predicted.exposed);
}

/// Exposed: what is predicted of attention at the rate that it had there.
void expect_exposed(const OverlapCase& slow) {
  const Overlap measured = measure_overlap(slow, /*tries=*/8);
  const Overlap predicted = predict_overlap(slow, flops_of(slow, measured));
  print(slow, measured, predicted);
  EXPECT_NEAR(measured.in_flight, predicted.in_flight, 1e-9);
  EXPECT_NEAR(measured.exposed, predicted.exposed, 0.25 * predicted.in_flight);
}

void expect_hidden(const OverlapCase& slow) {
  const Overlap measured = measure_overlap(slow, /*tries=*/8);
  const Overlap predicted = predict_overlap(slow, flops_of(slow, measured));
  print(slow, measured, predicted);
  EXPECT_EQ(predicted.exposed, 0);
  EXPECT_LT(measured.exposed, 0.1 * measured.in_flight);
}

TEST(Overlap, KvHidesFromTheLengthOfEquation2On) {
  if (kSanitized) GTEST_SKIP() << "times mean nothing where every access is checked";
  OverlapCase slow{.pass = RingPass::kv, .new_tokens = 1024, .cached_tokens = 4096};
  const double flops = flops_of(slow, measure_overlap(slow));
  slow.bandwidth = bandwidth_that_hides(slow, flops, 512);
  slow.new_tokens = 64;
  expect_exposed(slow);
  slow.new_tokens = 256;
  expect_exposed(slow);
  slow.new_tokens = 2048;
  expect_hidden(slow);
  slow.new_tokens = 1024;
  slow.latency = 2 * predict_overlap(slow, flops).computed;  // attention hides half of that
  expect_exposed(slow);
}

TEST(Overlap, QHidesFromTheContextOfEquation3On) {
  if (kSanitized) GTEST_SKIP() << "times mean nothing where every access is checked";
  OverlapCase slow{.pass = RingPass::q, .new_tokens = 512, .cached_tokens = 8192 - 512};
  const double flops = flops_of(slow, measure_overlap(slow));
  slow.bandwidth = bandwidth_that_hides(slow, flops, 2048);
  slow.cached_tokens = 0;
  expect_exposed(slow);
  slow.cached_tokens = 512;
  expect_exposed(slow);
  slow.cached_tokens = 8192;
  expect_hidden(slow);
}

}  // namespace
}  // namespace contexture
