#pragma once

#include "cache/cache.h"

namespace contexture {

size_t contiguous_bytes(const CachePlan& plan);
size_t contiguous_spans(const CachePlan& plan);
std::unique_ptr<Cache> make_contiguous(const CachePlan& plan);

}  // namespace contexture
