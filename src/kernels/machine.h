#pragma once

#include <cstddef>
#include <span>

#include "base/thread_pool.h"

namespace contexture {

/// Bytes a second at which all threads together read this memory, the best of a few passes over it. The ceiling that
/// decoding is held against: a token reads all weights once.
double read_bandwidth(std::span<const std::byte> memory, ThreadPool& pool);

/// Floating-point operations a second that all threads together reach in fused multiply-adds of f32 in registers, two
/// operations each, the best of a few rounds. The ceiling of products with float weights.
double multiply_add_peak(ThreadPool& pool);

}  // namespace contexture
