#include "contexture/engine.h"

#include "api/engine_impl.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "engine/readings.h"
#include "engine/session.h"

namespace contexture {
namespace {

GenerateOptions options_of(const Request& request) {
  return {.max_tokens = request.limits.max_tokens,
          .sampling = request.sampling,
          .resume = request.resume,
          .resumable = request.resumable,
          .ignore_end = request.limits.ignore_end,
          .stop = request.limits.stop,
          .alternatives = request.alternatives};
}

/// What a text that is only read comes to, as a future.
struct Promised {
  std::promise<std::vector<float>> promise = {};
  std::shared_ptr<void> place;  // of the engine's requests: given back before it is known that this one has ended

  void fail(const std::exception_ptr& error) {
    place.reset();
    promise.set_exception(error);
  }
};

Reading::Callbacks callbacks_of(const std::shared_ptr<Promised>& promised, const ReadOptions& options) {
  return {.on_finished =
              [promised](std::vector<float>&& values) {
                promised->place.reset();
                promised->promise.set_value(std::move(values));
              },
          .on_stopped =
              [promised](FinishReason reason) {
                const ErrorKind kind = reason == FinishReason::cancelled ? ErrorKind::cancelled : ErrorKind::too_long;
                promised->fail(std::make_exception_ptr(
                    Error("the text was not read to its end: " + std::string(name(reason)), kind)));
              },
          .on_failed = [promised](const std::exception_ptr& error) { promised->fail(error); },
          .cancelled = options.cancelled};
}

/// `make` makes the text from these callbacks.
template <class Make>
std::future<std::vector<float>> start_reading(Engine::Impl& engine, const ReadOptions& options, const Make& make) {
  const auto promised = std::make_shared<Promised>();
  const Reading::Callbacks callbacks = callbacks_of(promised, options);
  std::unique_ptr<Text> text = make(callbacks);
  promised->place = engine.take_place();
  engine.run(std::move(text), {.name_space = options.name_space}, callbacks.on_failed);
  return promised->promise.get_future();
}

}  // namespace

Stream& Stream::operator=(Stream&& other) noexcept {
  std::swap(state_, other.state_);
  return *this;
}

Stream::~Stream() {
  if (state_ && !state_->callback) cancel();
}

std::optional<Event> Stream::next() {
  return state_->take(std::nullopt);
}

std::optional<Event> Stream::next(std::chrono::milliseconds patience) {
  return state_->take(patience);
}

bool Stream::ended() const {
  return state_->ended();
}

Generation Stream::wait() {
  return generation_of(*state_->wait_for_last(std::nullopt));
}

std::optional<Generation> Stream::wait(std::chrono::milliseconds patience) {
  const std::optional<Event> last = state_->wait_for_last(patience);
  return last ? std::optional(generation_of(*last)) : std::nullopt;
}

void Stream::cancel() noexcept {
  state_->cancelled = true;
}

Engine::Engine(const Model& model, const EngineOptions& options) : impl_(std::make_shared<Impl>(model, options)) {
  impl_->start_thread();
}

Engine::~Engine() {
  impl_->close();
}

Stream Engine::submit(const Request& request, Callback callback) {
  return Stream(
      impl_->start({.submission = {.prompt = impl_->model.tokens_of(request.prompt), .options = options_of(request)},
                    .session = request.session,
                    .name_space = request.name_space},
                   std::move(callback)));
}

std::future<std::vector<float>> Engine::score(const Prompt& text, size_t from, const ReadOptions& options) {
  return start_reading(*impl_, options, [&](const Reading::Callbacks& callbacks) {
    return std::make_unique<Scoring>(impl_->limits(), impl_->model.tokens_of(text), from, callbacks);
  });
}

std::future<std::vector<float>> Engine::embed(const Prompt& text, Pooling pooling, const ReadOptions& options) {
  return start_reading(*impl_, options, [&](const Reading::Callbacks& callbacks) {
    return std::make_unique<Embedding>(impl_->limits(), impl_->model.tokens_of(text), pooling, callbacks);
  });
}

const Model& Engine::model() const {
  return impl_->model;
}

const Plan& Engine::plan() const {
  return impl_->plan;
}

Statistics Engine::statistics() const {
  return impl_->statistics();
}

void Engine::close() {
  impl_->close();
}

/// The events are taken on the caller's thread, so that the callback may say which token is the last: what the engine
/// made meanwhile is left out.
Generation generate(Engine& engine, const Request& request,
                    const std::function<bool(const GeneratedToken&)>& on_token) {
  Stream stream = engine.submit(request);
  if (!on_token) return stream.wait();
  size_t tokens = 0;
  std::string text;
  bool stopped = false;
  for (const Event& event : stream) {
    const auto* token = std::get_if<TokenEvent>(&event);
    if (!token || stopped) continue;
    tokens += token->id >= 0;
    text += token->text;
    stopped = !on_token({token->id, token->log_probability, token->text, token->alternatives});
    if (stopped) stream.cancel();
  }
  Generation made = stream.wait();
  if (stopped) cut_after(made, tokens, std::move(text));
  return made;
}

}  // namespace contexture
