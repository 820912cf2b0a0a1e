#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "contexture/engine.h"

namespace contexture {

/// What becomes of one request, between the thread that steps and whoever waits.
struct Stream::State {
  /// Set by cancel(), and looked at by the engine.
  std::atomic<bool> cancelled{false};
  Engine::Callback callback;  // of a request that has one: it gets the events in place of the queue
  std::atomic<bool> callback_threw{false};

  /// Puts an event into the queue. From one thread.
  void push(Event event);
  /// The next event; nothing after the last one, or where none comes in time. `patience`: nothing for as long as it
  /// takes.
  std::optional<Event> take(std::optional<std::chrono::milliseconds> patience);
  bool ended() const;
  /// The last event, once it is there: it can be asked for any number of times.
  std::optional<Event> wait_for_last(std::optional<std::chrono::milliseconds> patience);
  /// The last event has been given to the callback.
  void tell_delivered(const Event& last);

 private:
  template <class Condition>
  bool wait(std::unique_lock<std::mutex>& lock, std::optional<std::chrono::milliseconds> patience,
            const Condition& condition);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Event> events_;
  std::optional<Event> last_;
};

/// FinishedEvent or FailedEvent.
bool is_last(const Event& event);

/// What wait() returns: throws what failed.
Generation generation_of(const Event& last);

/// Hands events to callbacks, on a thread of its own: what takes long there holds up no step. One that throws is asked
/// no more, and its request is cancelled.
class Delivery {
 public:
  /// Waits until all is delivered; within a callback, which cannot wait for itself, leaves that to the thread.
  ~Delivery();
  /// Before the first event. Throws std::system_error where there is no thread to be had.
  void start();
  void push(std::shared_ptr<Stream::State> state, Event event);

 private:
  struct Item {
    std::shared_ptr<Stream::State> state;
    Event event;
  };
  /// The thread's too, which may outlive this.
  struct Queue {
    std::mutex mutex;
    std::condition_variable changed;
    std::deque<Item> items;
    bool ends = false;
  };
  static void work(Queue& queue);
  static void deliver(const Item& item);

  const std::shared_ptr<Queue> queue_ = std::make_shared<Queue>();
  std::thread thread_;
};

}  // namespace contexture
