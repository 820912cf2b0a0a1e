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
      plan(shown(memory)),
      most_requests(options.waiting + std::min(memory.cache.sequences, SIZE_MAX - options.waiting)),
      executor(make_executor(model.impl()->transformer, memory)),
      scheduler(*executor, model.impl()->opened.tokenizer ? &*model.impl()->opened.tokenizer : nullptr,
                {.step_ns = std::min<uint64_t>(options.step_milliseconds, 1'000'000'000) * 1'000'000,
                 .swap_bytes = options.swap_bytes}) {}

Engine::Impl::~Impl() {
  if (thread_.joinable()) thread_.detach();  // it is this thread, at its end: Engine waits for it elsewhere
}

void Engine::Impl::start_thread() {
  thread_ = std::thread([self = shared_from_this()] { self->loop(); });
}

void Engine::Impl::close() {
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  changed_.notify_all();
  if (is_engine_thread()) return;
  const std::lock_guard one_at_a_time(join_mutex_);
  if (thread_.joinable()) thread_.join();
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
  thread_id_ = std::this_thread::get_id();
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
    if (is_broken) scheduler.fail_all(closed_error(broken_));  // what came while it broke
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
                 .free_tokens = executor->books().free_tokens(),
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

std::shared_ptr<void> Engine::Impl::take_place() {
  if (requests_->fetch_add(1) >= most_requests) {
    --*requests_;
    fail_as(ErrorKind::busy, "{} requests are there already; try again later", most_requests);
  }
  return {nullptr, [count = requests_](void*) { --*count; }};
}

namespace {

/// What a request has of the engine until it ends. It goes before the last event is sent: whoever waits for that may
/// ask again at once. The session's handle goes after it, which may be the last.
struct Held {
  std::shared_ptr<Session> session;
  std::optional<Session::Impl::Work> work;
  std::shared_ptr<void> place;
};

}  // namespace

GenerationCallbacks Engine::Impl::callbacks_of(const std::shared_ptr<Stream::State>& state,
                                               const InnerRequest& request) {
  GenerationCallbacks callbacks{.cancelled = request.submission.callbacks.cancelled};
  if (!callbacks.cancelled) callbacks.cancelled = &state->cancelled;
  callbacks.on_prefill = [this, state](size_t done, size_t total) { send(state, PrefillEvent{done, total}); };
  callbacks.on_token = [this, state](const GeneratedToken& t) {
    send(state,
         TokenEvent{t.id, t.log_probability, std::string(t.text), {t.alternatives.begin(), t.alternatives.end()}});
    return true;
  };
  const auto held = std::make_shared<Held>();
  held->session = request.session;
  held->place = take_place();
  if (request.session) held->work.emplace(request.session->impl());
  const auto end = [this, state, held](Event event) {
    held->work.reset();
    held->place.reset();
    send(state, std::move(event));
    held->session.reset();
  };
  callbacks.on_finished = [end](Generation&& made) { end(FinishedEvent{std::move(made)}); };
  callbacks.on_failed = [end](const std::exception_ptr& error) { end(failed_event(error)); };
  return callbacks;
}

std::shared_ptr<Stream::State> Engine::Impl::start(InnerRequest request, Callback callback) {
  if (request.session && request.session->impl().engine.lock().get() != this) {
    fail("the session is another engine's; save it there and load it into this one");
  }
  if (callback) delivery_.start();
  const auto state = std::make_shared<Stream::State>();
  state->callback = std::move(callback);
  request.submission.callbacks = callbacks_of(state, request);
  TextOptions options{.name_space = request.name_space, .planned_tokens = request.planned_tokens};
  if (request.session) options.kept = request.session->impl().id;
  run(std::make_unique<Completion>(limits(), tokenizer(), request.submission), options,
      request.submission.callbacks.on_failed);
  return state;
}

void Engine::Impl::run(std::unique_ptr<Text> text, const TextOptions& options,
                       const std::function<void(const std::exception_ptr&)>& failed) {
  auto shared = std::make_shared<std::unique_ptr<Text>>(std::move(text));  // a task can be copied
  post([this, shared, options, failed] {
    try {
      scheduler.submit(std::move(*shared), options);
    } catch (...) {
      failed(std::current_exception());
    }
  });
}

Cache& Engine::Impl::cache() const {
  Cache* const cache = executor->cache_here();
  if (!cache) fail("sessions cannot be saved or loaded where the context is not in this machine's memory");
  return *cache;
}

KeptContexts::Context& Engine::Impl::idle(KeptId id) {
  KeptContexts::Context& context = scheduler.kept().at(id);
  if (context.busy) fail_as(ErrorKind::conflict, "the session is at work; wait for the end of what runs in it");
  return context;
}

std::shared_ptr<Engine::Impl> Session::Impl::need_engine() const {
  std::shared_ptr<Engine::Impl> alive = engine.lock();
  if (!alive) fail_as(ErrorKind::closed, "the engine of this session is gone");
  return alive;
}

Session::Impl::Work::Work(Impl& session) : session_(session) {
  if (session_.at_work.exchange(true)) {
    fail_as(ErrorKind::conflict, "the session is at work; wait for the end of what runs in it, or fork it before");
  }
}

}  // namespace contexture
