#pragma once

#include "cache/cache.h"

namespace contexture {

size_t mixed_bytes(const CachePlan& plan);
size_t mixed_spans(const CachePlan& plan);
size_t mixed_bytes_read(const CachePlan& plan, size_t tokens);
std::unique_ptr<Cache> make_mixed(const CachePlan& plan);

}  // namespace contexture
