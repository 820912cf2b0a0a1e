#include "api/stream_state.h"

#include <utility>

#include "base/log.h"

namespace contexture {

bool is_last(const Event& event) {
  return std::holds_alternative<FinishedEvent>(event) || std::holds_alternative<FailedEvent>(event);
}

Generation generation_of(const Event& last) {
  if (const auto* failed = std::get_if<FailedEvent>(&last)) throw Error(failed->message, failed->kind);
  return std::get<FinishedEvent>(last).generation;
}

template <class Condition>
bool Stream::State::wait(std::unique_lock<std::mutex>& lock, std::optional<std::chrono::milliseconds> patience,
                         const Condition& condition) {
  if (patience) return changed_.wait_for(lock, *patience, condition);
  changed_.wait(lock, condition);
  return true;
}

void Stream::State::push(Event event) {
  {
    const std::lock_guard lock(mutex_);
    if (is_last(event)) last_ = event;
    events_.push_back(std::move(event));
  }
  changed_.notify_all();
}

void Stream::State::tell_delivered(const Event& last) {
  {
    const std::lock_guard lock(mutex_);
    last_ = last;
  }
  changed_.notify_all();
}

std::optional<Event> Stream::State::take(std::optional<std::chrono::milliseconds> patience) {
  if (callback) return std::nullopt;
  std::unique_lock lock(mutex_);
  if (!wait(lock, patience, [&] { return !events_.empty() || last_; }) || events_.empty()) return std::nullopt;
  Event event = std::move(events_.front());
  events_.pop_front();
  return event;
}

bool Stream::State::ended() const {
  const std::lock_guard lock(mutex_);
  return last_ && events_.empty();
}

std::optional<Event> Stream::State::wait_for_last(std::optional<std::chrono::milliseconds> patience) {
  std::unique_lock lock(mutex_);
  if (!wait(lock, patience, [&] { return last_.has_value(); })) return std::nullopt;
  events_.clear();
  return last_;
}

Delivery::~Delivery() {
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->ends = true;
  }
  queue_->changed.notify_all();
  if (!thread_.joinable()) return;
  if (thread_.get_id() == std::this_thread::get_id()) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

void Delivery::start() {
  const std::lock_guard lock(queue_->mutex);
  if (!thread_.joinable()) thread_ = std::thread([queue = queue_] { work(*queue); });
}

void Delivery::push(std::shared_ptr<Stream::State> state, Event event) {
  {
    const std::lock_guard lock(queue_->mutex);
    queue_->items.push_back({std::move(state), std::move(event)});
  }
  queue_->changed.notify_all();
}

/// Until all that was pushed is delivered. What an event was the last to hold goes without the lock: it may be a
/// session, or the host's.
void Delivery::work(Queue& queue) {
  for (;;) {
    std::unique_lock lock(queue.mutex);
    queue.changed.wait(lock, [&] { return queue.ends || !queue.items.empty(); });
    if (queue.items.empty()) return;
    const Item item = std::move(queue.items.front());
    queue.items.pop_front();
    lock.unlock();
    deliver(item);
  }
}

void Delivery::deliver(const Item& item) {
  Stream::State& state = *item.state;
  if (!state.callback_threw) {
    try {
      state.callback(item.event);
    } catch (const std::exception& error) {
      log_warning("a request's callback threw: {}; the request is cancelled", error.what());
      state.callback_threw = state.cancelled = true;
    } catch (...) {
      log_warning("a request's callback threw; the request is cancelled");
      state.callback_threw = state.cancelled = true;
    }
  }
  if (!is_last(item.event)) return;
  state.tell_delivered(state.callback_threw ? Event(FailedEvent{ErrorKind::internal, "the request's callback threw"})
                                            : item.event);
}

}  // namespace contexture
