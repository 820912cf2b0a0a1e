#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "api/model_impl.h"
#include "api/stream_state.h"
#include "base/error.h"
#include "engine/runtime.h"
#include "engine/scheduler.h"

namespace contexture {

/// A request, with the parts that only the house uses.
struct InnerRequest {
  Submission submission;
  std::shared_ptr<Session> session = {};
  std::string name_space = {};
  size_t planned_tokens = 0;  // TextOptions
};

/// An engine's thread, and what lies between it and those who ask. Everything about the scheduler happens on that
/// thread: others leave it things to do, between two steps.
struct Engine::Impl : std::enable_shared_from_this<Engine::Impl> {
  Impl(const Model& model, const EngineOptions& options);
  ~Impl();

  /// Starts the thread, which owns this too until it ends.
  void start_thread();

  std::shared_ptr<Stream::State> start(InnerRequest request, Callback callback);
  /// One of the requests that may be there at once; it is one no more when what this returns goes. Throws Error (busy)
  /// where there are too many.
  std::shared_ptr<void> take_place();
  /// Runs a text whose outcome goes elsewhere; `failed` hears where it does not even begin.
  void run(std::unique_ptr<Text> text, const TextOptions& options,
           const std::function<void(const std::exception_ptr&)>& failed);

  /// Does something between two steps, and waits for it; throws what that throws, and Error where the engine is closed.
  template <class Body>
  auto between_steps(const Body& body) -> decltype(body());

  /// Lets a kept context go; returns at once.
  void drop(KeptId id) {
    post([this, id] { scheduler.kept().drop(id); });
  }

  /// A context that is kept, between two steps. Throws Error (conflict) where something is done in it.
  KeptContexts::Context& idle(KeptId id);

  /// The cache that sessions are saved from and loaded into. Throws Error where the executor has none here.
  Cache& cache() const;
  TextLimits limits() const { return limits_of(executor->capacities()); }
  const Tokenizer& tokenizer() const { return model.impl()->opened.need_tokenizer(); }
  void close();

  const Model model;
  const MemoryPlan memory;
  const Plan plan;
  const size_t most_requests;
  const std::unique_ptr<Executor> executor;
  Scheduler scheduler;  // the engine's thread's, once it runs

  Statistics statistics() const;

 private:
  using Task = std::function<void()>;
  void post(Task task);
  bool is_engine_thread() const { return thread_id_.load() == std::this_thread::get_id(); }
  void loop();
  bool step(bool& is_broken);
  void publish();
  void send(const std::shared_ptr<Stream::State>& state, Event event);
  GenerationCallbacks callbacks_of(const std::shared_ptr<Stream::State>& state, const InnerRequest& request);

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> tasks_;
  bool closing_ = false;
  std::atomic<std::thread::id> thread_id_ = {};
  std::mutex join_mutex_;
  std::optional<std::string> broken_;  // why it can run nothing more
  mutable std::mutex statistics_mutex_;
  Statistics statistics_;
  const std::shared_ptr<std::atomic<size_t>> requests_ = std::make_shared<std::atomic<size_t>>(0);  // that are there
  Delivery delivery_;
  std::thread thread_;
};

/// A context that a scheduler keeps.
struct Session::Impl {
  std::weak_ptr<Engine::Impl> engine;
  KeptId id = 0;
  std::atomic<bool> at_work{false};

  /// The engine. Throws Error where it is gone.
  std::shared_ptr<Engine::Impl> need_engine() const;
  /// Marks it as at work while it lives. Throws Error (ErrorKind::conflict) where it is already.
  class Work;
};

class Session::Impl::Work {
 public:
  explicit Work(Impl& session);
  ~Work() { session_.at_work = false; }

 private:
  Impl& session_;
};

template <class Body>
auto Engine::Impl::between_steps(const Body& body) -> decltype(body()) {
  if (is_engine_thread()) fail_as(ErrorKind::conflict, "the engine would wait for itself; ask from another thread");
  auto task = std::make_shared<std::packaged_task<decltype(body())()>>(body);
  auto result = task->get_future();
  post([task] { (*task)(); });
  return result.get();
}

}  // namespace contexture
