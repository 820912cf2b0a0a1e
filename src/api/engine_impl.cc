#include "api/engine_impl.h"

#include <utility>

#include "base/error.h"

namespace contexture {
namespace {

std::exception_ptr closed_error(const std::optional<std::string>& why) {
  return std::make_exception_ptr(
      Error(why ? "the engine has failed: " + *why : "the engine has been closed", ErrorKind::closed));
}

FailedEvent failed_event(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const Error& e) {
    return {e.kind(), e.what()};
  } catch (const std::bad_alloc&) {
    return {ErrorKind::internal, "memory is short"};
  } catch (const std::exception& e) {
    return {ErrorKind::internal, e.what()};
  } catch (...) {
    return {ErrorKind::internal, "something unknown was thrown"};
  }
}

const Model& with_weights(const Model& model) {
  if (!model.impl()->transformer) fail("the model was opened without its weights; open it with them");
  return model;
}

}  // namespace

Engine::Impl::Impl(const Model& given, const EngineOptions& options)
    : model(with_weights(given)),
      memory(memory_plan(*model.impl(), options)),
      plan(told(memory)),
      most_waiting(options.waiting),
      executor(model.impl()->transformer, memory),
      scheduler(executor, model.impl()->opened.tokenizer ? &*model.impl()->opened.tokenizer : nullptr,
                {.step_ns = options.step_milliseconds * 1'000'000, .swap_bytes = options.swap_bytes}),
      thread_([this] { loop(); }) {}

Engine::Impl::~Impl() {
  close();
}

void Engine::Impl::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  const std::lock_guard one_at_a_time(join_mutex_);
  if (thread_.joinable() && thread_.get_id() != std::this_thread::get_id()) thread_.join();
}

void Engine::Impl::post(Task task) {
  {
    const std::lock_guard lock(mutex_);
    if (closing_ || broken_) std::rethrow_exception(closed_error(broken_));
    tasks_.push_back(std::move(task));
  }
  changed_.notify_all();
}

void Engine::Impl::loop() {
  for (bool busy = false, is_broken = false;;) {
    std::deque<Task> tasks;
    bool closing = false;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [&] { return busy || closing_ || !tasks_.empty(); });
      tasks.swap(tasks_);
      closing = closing_;
    }
    for (const Task& task : tasks) task();
    if (closing) break;
    busy = !is_broken && step(is_broken);
    publish();
  }
  scheduler.fail_all(closed_error(std::nullopt));
  publish();
}

/// False where nothing is left to do. What breaks the executor ends all that runs, and all that comes.
bool Engine::Impl::step(bool& is_broken) {
  try {
    return scheduler.step();
  } catch (...) {
    is_broken = true;
    const FailedEvent failed = failed_event(std::current_exception());
    {
      const std::lock_guard lock(mutex_);
      broken_ = failed.message;
    }
    scheduler.fail_all(closed_error(failed.message));
    return false;
  }
}

void Engine::Impl::publish() {
  const SchedulerCounts counts = scheduler.counts();
  const std::lock_guard lock(statistics_mutex_);
  statistics_ = {.running = counts.running,
                 .waiting = counts.waiting,
                 .steps = counts.steps,
                 .prompt_tokens = counts.prompt_tokens,
                 .reused_tokens = counts.reused_tokens,
                 .generated_tokens = counts.generated_tokens,
                 .preemptions = counts.preemptions,
                 .swaps = counts.swaps,
                 .free_tokens = executor.books().free_tokens(),
                 .step_seconds = 1e-9 * static_cast<double>(counts.rates.step_ns),
                 .prompt_token_seconds = 1e-9 * static_cast<double>(counts.rates.prompt_token_ns)};
}

Statistics Engine::Impl::statistics() const {
  const std::lock_guard lock(statistics_mutex_);
  return statistics_;
}

void Engine::Impl::send(const std::shared_ptr<Stream::State>& state, Event event) {
  if (state->callback) {
    delivery_.push(state, std::move(event));
  } else {
    state->push(std::move(event));
  }
}

std::shared_ptr<Stream::State> Engine::Impl::start(Asked asked, Callback callback) {
  if (asked.session && asked.session->impl().engine.lock().get() != this) {
    fail("the session is another engine's; load it into this one");
  }
  const auto state = std::make_shared<Stream::State>();
  state->callback = std::move(callback);
  GenerationCallbacks& callbacks = asked.submission.callbacks;
  if (!callbacks.cancelled) callbacks.cancelled = &state->cancelled;
  callbacks.on_prefill = [this, state](size_t done, size_t total) { send(state, PrefillEvent{done, total}); };
  callbacks.on_token = [this, state](const GeneratedToken& t) {
    send(state,
         TokenEvent{t.id, t.log_probability, std::string(t.text), {t.alternatives.begin(), t.alternatives.end()}});
    return true;
  };
  // What holds the session lets it go before the last event is told: whoever waits for that may ask again at once.
  std::shared_ptr<Session::Impl::Work> work;
  if (asked.session) work = std::make_shared<Session::Impl::Work>(asked.session->impl());
  auto held = std::make_shared<std::pair<std::shared_ptr<Session>, std::shared_ptr<Session::Impl::Work>>>(
      asked.session, std::move(work));
  const auto end = [this, state, held](Event event) {
    held->second.reset();
    send(state, std::move(event));
    held->first.reset();
  };
  callbacks.on_finished = [end](Generation&& made) { end(FinishedEvent{std::move(made)}); };
  callbacks.on_failed = [end](const std::exception_ptr& error) { end(failed_event(error)); };

  TextOptions options{.name_space = asked.name_space, .planned_tokens = asked.planned_tokens};
  if (asked.session) options.kept = asked.session->impl().id;
  run(std::make_unique<Completion>(limits(), tokenizer(), asked.submission), options, callbacks.on_failed);
  return state;
}

void Engine::Impl::run(std::unique_ptr<Text> text, const TextOptions& options,
                       const std::function<void(const std::exception_ptr&)>& failed) {
  const size_t before = statistics().waiting;
  {
    const std::lock_guard lock(mutex_);
    if (closing_ || broken_) std::rethrow_exception(closed_error(broken_));
    const size_t waiting = before + tasks_.size();
    if (waiting >= most_waiting) fail_as(ErrorKind::busy, "{} requests wait already; try again later", waiting);
  }
  auto shared = std::make_shared<std::unique_ptr<Text>>(std::move(text));  // a task can be copied
  post([this, shared, options, failed] {
    try {
      scheduler.submit(std::move(*shared), options);
    } catch (...) {
      failed(std::current_exception());
    }
  });
}

std::shared_ptr<Engine::Impl> Session::Impl::need_engine() const {
  std::shared_ptr<Engine::Impl> alive = engine.lock();
  if (!alive) fail_as(ErrorKind::closed, "the engine of this session is gone");
  return alive;
}

Session::Impl::Work::Work(Impl& session) : session_(session) {
  if (session_.at_work.exchange(true)) {
    fail_as(ErrorKind::conflict, "a request runs in this session; wait for its end, or fork the session before");
  }
}

}  // namespace contexture
