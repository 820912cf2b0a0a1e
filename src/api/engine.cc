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
std::pair<Reading::Callbacks, std::future<std::vector<float>>> promised() {
  auto promise = std::make_shared<std::promise<std::vector<float>>>();
  const auto stopped = [promise](FinishReason reason) {
    promise->set_exception(std::make_exception_ptr(
        Error("the text was not read to its end: " + std::string(name(reason)), ErrorKind::busy)));
  };
  return {Reading::Callbacks{
              .on_finished = [promise](std::vector<float>&& values) { promise->set_value(std::move(values)); },
              .on_stopped = stopped,
              .on_failed = [promise](const std::exception_ptr& error) { promise->set_exception(error); }},
          promise->get_future()};
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

Engine::Engine(const Model& model, const EngineOptions& options) : impl_(std::make_shared<Impl>(model, options)) {}

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

std::future<std::vector<float>> Engine::score(const Prompt& text, size_t from) {
  auto [callbacks, future] = promised();
  impl_->run(std::make_unique<Scoring>(impl_->limits(), impl_->model.tokens_of(text), from, callbacks), {},
             callbacks.on_failed);
  return std::move(future);
}

std::future<std::vector<float>> Engine::embed(const Prompt& text, Pooling pooling) {
  auto [callbacks, future] = promised();
  impl_->run(std::make_unique<Embedding>(impl_->limits(), impl_->model.tokens_of(text), pooling, callbacks), {},
             callbacks.on_failed);
  return std::move(future);
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
