#include "engine/session.h"

#include "api/engine_impl.h"
#include "base/error.h"
#include "base/mapped_file.h"
#include "contexture/engine.h"

namespace contexture {
namespace {

std::shared_ptr<Session> session_of(const std::shared_ptr<Engine::Impl>& engine, KeptId id) {
  auto impl = std::make_unique<Session::Impl>();
  impl->engine = engine;
  impl->id = id;
  return std::make_shared<Session>(std::move(impl));
}

/// The rotation of the model that a session's rows were made with. Throws Error where it is none of them.
RotationId rotation_of(const SessionFile& file, const Transformer& model) {
  for (size_t rotation = 0; rotation < model.weights().rope_frequencies.size(); ++rotation) {
    if (is_rotated_alike(file, model, static_cast<RotationId>(rotation))) return static_cast<RotationId>(rotation);
  }
  fail_as(ErrorKind::damaged, "session {} was rotated as this model rotates nothing; run its text again",
          printable(file.path, 400));
}

/// On the engine's thread.
KeptId restore(Engine::Impl& engine, const SessionFile& file, const Digest& digest) {
  const RotationId rotation = rotation_of(file, engine.executor.model());
  const uint64_t key = engine.scheduler.key_of({}, rotation);
  const std::optional<SequenceId> sequence = engine.scheduler.create(key);
  if (!sequence) fail_as(ErrorKind::busy, "no room for another sequence; try again later");
  try {
    restore_session(file, engine.executor, *sequence, digest);
  } catch (...) {
    engine.executor.cache().free(*sequence);
    throw;
  }
  const auto begin = file.state.tokens.begin();
  return engine.scheduler.kept().lend(*sequence, {begin, begin + file.context.length}, rotation, key);
}

/// Runs what a session's sequence no longer holds.
void run_again(Engine::Impl& engine, const std::shared_ptr<Session>& session, const std::vector<TokenId>& tokens) {
  auto state = engine.start({.submission = {.prompt = tokens, .options = {.max_tokens = 0}}, .session = session}, {});
  (void)Stream(std::move(state)).wait();
}

}  // namespace

Session::Session(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Session::~Session() {
  const std::shared_ptr<Engine::Impl> engine = impl_->engine.lock();
  if (!engine) return;
  try {
    engine->drop(impl_->id);
  } catch (const std::exception&) {
    // It is closed, and holds nothing any more.
  }
}

std::vector<int32_t> Session::tokens() const {
  const std::shared_ptr<Engine::Impl> engine = impl_->need_engine();
  const Impl::Work work(*impl_);
  return engine->between_steps([&] { return engine->scheduler.kept().at(impl_->id).tokens; });
}

std::shared_ptr<Session> Session::fork() const {
  const std::shared_ptr<Engine::Impl> engine = impl_->need_engine();
  const Impl::Work work(*impl_);
  return session_of(engine, engine->between_steps([&] { return engine->scheduler.kept().fork(impl_->id); }));
}

void Session::truncate(size_t tokens) {
  const std::shared_ptr<Engine::Impl> engine = impl_->need_engine();
  const Impl::Work work(*impl_);
  engine->between_steps([&] {
    KeptContexts& kept = engine->scheduler.kept();
    const size_t held = kept.at(impl_->id).tokens.size();
    if (tokens > held) fail("the session holds {} tokens, and cannot be cut to {}", held, tokens);
    kept.truncate(impl_->id, tokens);
  });
}

void Session::save(const std::string& path) const {
  const std::shared_ptr<Engine::Impl> engine = impl_->need_engine();
  const Digest& digest = engine->model.impl()->digest();
  const std::vector<TokenId> tokens = this->tokens();
  if (tokens.empty()) fail("the session is empty; there is nothing to save");
  const std::shared_ptr<Session> copy = fork();  // what is written is not in the way of requests
  const auto is_held = [&] {
    return engine->between_steps([&] {
      const KeptContexts::Context& context = engine->scheduler.kept().at(copy->impl().id);
      return context.sequence != KeptContexts::kNone &&
             engine->executor.cache().length(context.sequence) == tokens.size();
    });
  };
  if (!is_held()) run_again(*engine, copy, tokens);
  engine->between_steps([&] {
    const KeptContexts::Context& context = engine->scheduler.kept().at(copy->impl().id);
    if (context.sequence == KeptContexts::kNone)
      fail_as(ErrorKind::busy, "the session's rows had to make room; try again");
    save_session(path, engine->executor, context.sequence, {.tokens = context.tokens}, context.rotation, digest,
                 engine->model.facts().name);
  });
}

std::shared_ptr<Session> Engine::session() {
  return session_of(impl_, impl_->between_steps([this] { return impl_->scheduler.kept().create(); }));
}

std::shared_ptr<Session> Engine::load_session(const std::string& path) {
  const MappedFile map(path);
  SessionFile file;
  try {
    file = read_session(map.bytes(), path);
  } catch (const Error& error) {
    throw Error(error.what(), ErrorKind::damaged);
  }
  const Digest& digest = impl_->model.impl()->digest();
  return session_of(impl_, impl_->between_steps([&] { return restore(*impl_, file, digest); }));
}

}  // namespace contexture
