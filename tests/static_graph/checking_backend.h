#pragma once

#include "contexture/graph_backend.h"

namespace contexture {

/// A backend that runs another and is strict about it. It refuses what a device would: tensors that are not bound,
/// places that are misaligned, outside of their block, registered a second time or with another shape than the
/// tensor's, outputs that overlap. And it takes nothing for granted: every execution runs twice, each time with other
/// garbage in the outputs and in the cache's columns that the mask hides; outputs must come out the same. (In float
/// columns the garbage is NaN at times: such a recipe selects and does not add the mask.)
///
/// `inner` must outlive all that comes from the table; one at a time. `alignment`: that it asks for.
const cxg_backend& checking_backend(const cxg_backend& inner, uint32_t alignment = 1);

/// Numbers of cache columns that were filled with garbage so far: a test that expects some can see that there were.
size_t poisoned_numbers();

}  // namespace contexture
