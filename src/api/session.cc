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

/// Between two steps. Contexts that nobody uses make room for it.
KeptId restore(Engine::Impl& engine, const SessionFile& file, const Digest& digest, const std::string& name_space) {
  const RotationId rotation = rotation_of(file, *engine.model.impl()->transformer);
  const uint64_t key = engine.scheduler.key_of(name_space, rotation);
  const auto length = static_cast<size_t>(file.context.length);
  const std::optional<SequenceId> sequence = engine.scheduler.create(key);
  if (!sequence) fail_as(ErrorKind::busy, "no room for another sequence; try again later");
  Books& books = engine.executor->books();
  try {
    while (books.free_tokens() < length && engine.scheduler.kept().give_up_one()) {
    }
    restore_session(file, engine.cache(), engine.memory, *sequence, digest);
    const auto begin = file.state.tokens.begin();
    return engine.scheduler.kept().lend(*sequence, {begin, begin + file.context.length}, rotation, key);
  } catch (...) {
    books.free(*sequence);
    throw;
  }
}

/// A context whose rows stay where they are while this lives: nobody runs in it, and it makes no room.
class PinnedContext {
 public:
  /// Runs its tokens again where they had to make room. Throws Error where it is empty, or there is none for them.
  PinnedContext(Engine::Impl& engine, KeptId id) : engine_(engine), id_(id) {
    const auto pinned = std::make_shared<std::promise<void>>();
    engine_.between_steps([&] {
      if (engine_.idle(id_).tokens.empty()) fail("the session is empty; there is nothing to save");
      if (pin()) {
        pinned->set_value();
      } else {
        run_again_and_pin(pinned);
      }
    });
    pinned->get_future().get();
  }
  ~PinnedContext() {
    try {
      engine_.between_steps([this] { engine_.scheduler.kept().unpin(id_); });
    } catch (const std::exception&) {
      // The engine is closed.
    }
  }
  PinnedContext(const PinnedContext&) = delete;
  PinnedContext& operator=(const PinnedContext&) = delete;

  const HeldContext& held() const { return *held_; }
  const SessionState& state() const { return state_; }
  /// A layer's rows are copied between two steps, and handed on here.
  void rows(size_t layer, const ByteSink& sink) const {
    std::vector<std::byte> rows;
    rows.reserve(held_->context.layer_bytes());
    engine_.between_steps([&] {
      save_layer(engine_.cache(), sequence_, held_->context, layer,
                 [&](std::span<const std::byte> bytes) { rows.insert(rows.end(), bytes.begin(), bytes.end()); });
    });
    sink(rows);
  }

 private:
  /// False where its rows are not all there.
  bool pin() {
    const KeptContexts::Context& context = engine_.idle(id_);
    const Cache& cache = engine_.cache();
    if (context.sequence == KeptContexts::kNone || cache.length(context.sequence) < context.tokens.size()) return false;
    state_.tokens = context.tokens;
    sequence_ = context.sequence;
    held_ = held_context(cache, engine_.memory.cache, sequence_, *engine_.model.impl()->transformer, context.rotation);
    engine_.scheduler.kept().pin(id_);
    return true;
  }

  /// On the engine's thread, with nothing in between: as soon as its tokens are held it is pinned. The constructor
  /// waits.
  void run_again_and_pin(const std::shared_ptr<std::promise<void>>& pinned) {
    const auto on_failed = [pinned](const std::exception_ptr& error) { pinned->set_exception(error); };
    const auto on_finished = [this, pinned](Generation&&) {
      try {
        if (!pin()) fail_as(ErrorKind::busy, "there is no room to run the session's tokens again; try again later");
        pinned->set_value();
      } catch (...) {
        pinned->set_exception(std::current_exception());
      }
    };
    engine_.scheduler.submit(
        std::make_unique<Completion>(engine_.limits(), engine_.tokenizer(),
                                     Submission{.prompt = engine_.idle(id_).tokens,
                                                .options = {.max_tokens = 0},
                                                .callbacks = {.on_finished = on_finished, .on_failed = on_failed}}),
        {.kept = id_, .as_kept = true});
  }

  Engine::Impl& engine_;
  const KeptId id_;
  SequenceId sequence_ = KeptContexts::kNone;
  SessionState state_;
  std::optional<HeldContext> held_;
};

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
  return engine->between_steps([&] { return engine->idle(impl_->id).tokens; });
}

std::shared_ptr<Session> Session::fork() const {
  const std::shared_ptr<Engine::Impl> engine = impl_->need_engine();
  return session_of(engine, engine->between_steps([&] {
    (void)engine->idle(impl_->id);
    return engine->scheduler.kept().fork(impl_->id);
  }));
}

void Session::truncate(size_t tokens) {
  const std::shared_ptr<Engine::Impl> engine = impl_->need_engine();
  engine->between_steps([&] {
    const size_t held = engine->idle(impl_->id).tokens.size();
    if (tokens > held) fail("the session holds {} tokens, and cannot be cut to {}", held, tokens);
    engine->scheduler.kept().truncate(impl_->id, tokens);
  });
}

void Session::save(const std::string& path) const {
  const std::shared_ptr<Engine::Impl> engine = impl_->need_engine();
  const Digest& digest = engine->model.impl()->digest();
  const Impl::Work work(*impl_);
  const PinnedContext context(*engine, impl_->id);
  const auto rows = [&](size_t layer, const ByteSink& sink) { context.rows(layer, sink); };
  save_session(path, context.held(), rows, context.state(), digest, engine->model.facts().name);
}

std::shared_ptr<Session> Engine::session() {
  return session_of(impl_, impl_->between_steps([this] { return impl_->scheduler.kept().create(); }));
}

std::shared_ptr<Session> Engine::load_session(const std::string& path, const std::string& name_space) {
  const MappedFile map(path);
  const SessionFile file = read_session(map.bytes(), path);
  const Digest& digest = impl_->model.impl()->digest();
  check_session(file, impl_->memory, digest);  // before others make room for it
  return session_of(impl_, impl_->between_steps([&] { return restore(*impl_, file, digest, name_space); }));
}

}  // namespace contexture
