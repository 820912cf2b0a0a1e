#pragma once

#include <memory>
#include <span>
#include <string_view>

#include "model/step.h"

namespace contexture {

/// A mistake that a cache or attention could make, made on purpose: what checks them must then fail. Production code
/// knows nothing of it; a fault is a cache around the real one, or it changes what attention made before the model
/// reads it.
struct Fault {
  std::string_view name, what;
  /// A cache that makes the mistake; null where it is not one of caches. `inner`, of this plan, must outlive it.
  std::unique_ptr<Cache> (*make_cache)(const CachePlan& plan, Cache& inner) = nullptr;
  /// Changes what one attention has made.
  void (*change_output)(const AttentionShape& shape, const AttentionQueries& queries) = nullptr;

  std::unique_ptr<Cache> cache(const CachePlan& plan, Cache& inner) const {
    return make_cache ? make_cache(plan, inner) : nullptr;
  }
  /// An observer that makes the mistake and then tells `inner`, which may be null; null where it is not one of
  /// attention.
  std::unique_ptr<AttentionObserver> observer(AttentionObserver* inner) const;
};

/// One for each class of error.
std::span<const Fault> all_faults();

/// Null where there is none of this name.
const Fault* fault_from_name(std::string_view name);

}  // namespace contexture
