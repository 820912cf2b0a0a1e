#pragma once

#include "backends/ring/communicator.h"
#include "kernels/attention.h"
#include "tensor/format.h"

namespace contexture {

/// What the slowest rank reaches, in the units of the selectors.
struct RingRates {
  double flops = 0;      // operations/s of attention
  double bandwidth = 0;  // B/s to the next rank
};

/// Measures for some milliseconds: attention over K and V of these formats, on the rank's threads, and a megabyte that
/// all pass on at once. Collective; all ranks get the same numbers.
RingRates measure_rates(Communicator& ranks, const AttentionShape& shape, Format k, Format v, ThreadPool& pool);

}  // namespace contexture
