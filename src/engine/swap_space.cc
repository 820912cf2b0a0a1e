#include "engine/swap_space.h"

#include <new>
#include <utility>

namespace contexture {

SwapSpace::SwapSpace(Cache* cache, size_t bytes, std::function<uint64_t()> clock)
    : cache_(cache), bytes_(bytes), clock_(std::move(clock)) {}

/// Learns how long bytes take.
void SwapSpace::observe(size_t bytes, uint64_t nanoseconds) {
  if (bytes > 0) ns_per_byte_ = (7 * ns_per_byte_ + static_cast<double>(nanoseconds) / static_cast<double>(bytes)) / 8;
}

std::optional<SwapSpace::Ticket> SwapSpace::out(SequenceId sequence, uint64_t run_ns) {
  if (!cache_ || bytes_ == 0) return std::nullopt;
  const SavedContext saved = describe_context(*cache_, sequence);
  const size_t bytes = saved.layers * saved.layer_bytes();
  if (bytes > bytes_ - used_) return std::nullopt;
  const double both_ways = 2 * ns_per_byte_ * static_cast<double>(bytes);
  if (both_ways >= static_cast<double>(run_ns)) return std::nullopt;
  const uint64_t begin = clock_();
  try {
    contexts_[next_] = contexture::swap_out(*cache_, sequence);
  } catch (const std::bad_alloc&) {
    contexts_.erase(next_);
    return std::nullopt;
  }
  observe(bytes, clock_() - begin);
  used_ += bytes;
  return next_++;
}

bool SwapSpace::in(Ticket ticket, SequenceId sequence) {
  const SwappedContext& context = contexts_.at(ticket);
  const uint64_t begin = clock_();
  if (!contexture::swap_in(*cache_, sequence, context)) return false;
  observe(context.rows.size(), clock_() - begin);
  drop(ticket);
  return true;
}

void SwapSpace::drop(Ticket ticket) {
  const auto found = contexts_.find(ticket);
  used_ -= found->second.rows.size();
  contexts_.erase(found);
}

}  // namespace contexture
