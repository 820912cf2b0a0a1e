#pragma once

#include "cache/cache.h"

namespace contexture {

size_t contiguous_bytes(const CachePlan& plan);
std::unique_ptr<Cache> make_contiguous(const CachePlan& plan);

}  // namespace contexture
