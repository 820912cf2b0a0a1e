#pragma once

#include "cache/cache.h"

namespace contexture {

size_t paged_bytes(const CachePlan& plan);
size_t paged_spans(const CachePlan& plan);
std::unique_ptr<Cache> make_paged(const CachePlan& plan);

}  // namespace contexture
