#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "contexture/error.h"
#include "contexture/export.h"
#include "contexture/generation.h"
#include "contexture/model.h"
#include "contexture/options.h"
#include "contexture/sampling.h"

namespace contexture {

class Session;

/// A prompt, and how to go on from it. What is made of it is a function of these fields and of the engine's formats
/// alone: never of other requests, nor of when it came.
struct Request {
  Prompt prompt = {};
  Sampling sampling = {};
  Limits limits = {};
  Resume resume = {};                     ///< where the prompt is a text that goes on: what it left behind
  bool resumable = false;                 ///< text that is cut may go on: what cannot be shown yet is left to that
  size_t alternatives = 0;                ///< the likeliest tokens that are told beside each
  std::string name_space = {};            ///< requests share what the engine holds of prompts within one alone
  std::shared_ptr<Session> session = {};  ///< whose context it goes on in; one request at a time
};

/// How a text is read that is not gone on with.
struct ReadOptions {
  std::string name_space = {};                              ///< as Request's
  std::shared_ptr<const std::atomic<bool>> cancelled = {};  ///< set to true, it ends the reading: ErrorKind::cancelled
};

/// A part of the prompt has been run.
struct PrefillEvent {
  size_t done = 0;   ///< tokens
  size_t total = 0;  ///< of the prompt, those that had to be run
};
/// A token was made. Text that was held back until the end comes last, with id -1.
struct TokenEvent {
  int32_t id = 0;
  float log_probability = 0;  ///< natural, of the model's own distribution (before any filter)
  std::string text = {};      ///< whole characters that it completes
  std::vector<Alternative> alternatives = {};
};
/// The text has ended.
struct FinishedEvent {
  Generation generation = {};
};
/// It has ended by an error, which reached nobody else, but where the engine closed or broke (ErrorKind::closed).
struct FailedEvent {
  ErrorKind kind = ErrorKind::internal;
  std::string message = {};
};
/// What becomes of a request, in order. One of the last two comes last, once.
using Event = std::variant<PrefillEvent, TokenEvent, FinishedEvent, FailedEvent>;

/// What becomes of one request: a queue of events. A handle; movable. Where it goes while the request runs, the request
/// is cancelled, unless it has a callback.
class CONTEXTURE_API Stream {
 public:
  struct CONTEXTURE_LOCAL State;
  explicit Stream(std::shared_ptr<State> state) : state_(std::move(state)) {}
  Stream(Stream&&) noexcept = default;
  Stream& operator=(Stream&&) noexcept;
  ~Stream();

  /// Waits for the next event; nothing after the last one, and where a request has a callback, which gets them all.
  std::optional<Event> next();
  /// The same, for so long at most; nothing where none came (ended() tells which).
  std::optional<Event> next(std::chrono::milliseconds patience);
  /// The last event has been taken, or given to the callback.
  bool ended() const;

  /// Waits for the end, passing over other events. Throws Error where the request failed.
  Generation wait();
  /// The same, for so long at most.
  std::optional<Generation> wait(std::chrono::milliseconds patience);

  /// Ends the request after its present step (after the present layer where it is alone in it); its pages are free
  /// within a step. From any thread, and from a signal handler.
  void cancel() noexcept;

  /// For `for (const Event& event : stream)`.
  class Iterator {
   public:
    explicit Iterator(Stream* stream) : stream_(stream) { ++*this; }
    Iterator() = default;
    const Event& operator*() const { return *event_; }
    Iterator& operator++() {
      event_ = stream_->next();
      return *this;
    }
    bool operator!=(const Iterator&) const { return event_.has_value(); }

   private:
    Stream* stream_ = nullptr;
    std::optional<Event> event_;
  };
  Iterator begin() { return Iterator(this); }
  Iterator end() { return {}; }

 private:
  std::shared_ptr<State> state_;
};

/// What an engine has done and holds: a snapshot, as of the last step.
struct Statistics {
  size_t running = 0;  ///< requests
  size_t waiting = 0;
  uint64_t steps = 0;
  uint64_t prompt_tokens = 0;  ///< run
  uint64_t reused_tokens = 0;  ///< of prompts, that were held already
  uint64_t generated_tokens = 0;
  uint64_t preemptions = 0;         ///< a text made room for older ones
  uint64_t swaps = 0;               ///< of them, to memory
  size_t free_tokens = 0;           ///< that could be appended now; SIZE_MAX where every text has room of its own
  double step_seconds = 0;          ///< of a step that decodes, lately
  double prompt_token_seconds = 0;  ///< of each token of a prompt beside that, lately
};

/// Runs a model for any number of requests: a thread that steps, and all the memory that the plan says. Every member
/// may be called from any thread.
class CONTEXTURE_API Engine {
 public:
  /// Sees the events of a request, in order, never two at once; on a thread of the engine's that does not step: a
  /// callback that takes long holds up other callbacks alone. What it throws cancels the request.
  using Callback = std::function<void(const Event&)>;

  /// Throws Error where the plan cannot be carried out.
  explicit Engine(const Model& model, const EngineOptions& options = {});
  /// Closes it.
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  /// Queues a request, and returns at once. Throws Error for one that makes no sense (ErrorKind::invalid), whose prompt
  /// is too long, whose session is at work (conflict), or where too many wait (busy) or the engine is closed.
  Stream submit(const Request& request, Callback callback = {});

  /// A new, empty context.
  std::shared_ptr<Session> session();
  /// One from a file that Session::save wrote. Its K and V are filled in between two steps. Throws Error where it is
  /// damaged (ErrorKind::damaged), of another model, longer than the context (too_long), or there is no room (busy).
  /// `name_space`: of the requests that are to go on in it.
  std::shared_ptr<Session> load_session(const std::string& path, const std::string& name_space = {});

  /// Natural log-probabilities of a text's tokens from place `from` ≥ 1 on, each after those before it. Throws Error as
  /// submit(); what goes wrong later comes out of the future.
  std::future<std::vector<float>> score(const Prompt& text, size_t from = 1, const ReadOptions& options = {});
  /// A text's last hidden states as one vector of norm 1: (ModelFacts::hidden).
  std::future<std::vector<float>> embed(const Prompt& text, Pooling pooling = Pooling::mean,
                                        const ReadOptions& options = {});

  const Model& model() const;
  const Plan& plan() const;
  /// Never waits for a step.
  Statistics statistics() const;

  /// Ends what runs, waits for the present step, and refuses all that comes (ErrorKind::closed).
  void close();

  struct CONTEXTURE_LOCAL Impl;
  Impl& impl() { return *impl_; }

 private:
  std::shared_ptr<Impl> impl_;
};

/// A context that stays between requests: what one request has made is where the next goes on. Its tokens stay while
/// its handle does; K and V of them as long as there is room, and are run again where there was not. A request that
/// failed leaves what it had in common with what was there before. Every member waits for the present step, and throws
/// Error where a request runs in it, or it is being saved (ErrorKind::conflict).
class CONTEXTURE_API Session {
 public:
  struct CONTEXTURE_LOCAL Impl;
  explicit Session(std::unique_ptr<Impl> impl);
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  /// Tokens that it holds.
  std::vector<int32_t> tokens() const;
  /// Another that goes on from the same tokens.
  std::shared_ptr<Session> fork() const;
  /// Forgets all but the first tokens.
  void truncate(size_t tokens);
  /// Writes it to a file that is there whole or as it was, layer by layer between other requests' steps; what has had
  /// to make room is run again first.
  void save(const std::string& path) const;

  Impl& impl() const { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

/// Completes a prompt, and waits for it. `on_token` sees every token as it is made, on this thread; it returns false to
/// stop: then that token is the last.
CONTEXTURE_API Generation generate(Engine& engine, const Request& request,
                                   const std::function<bool(const GeneratedToken&)>& on_token = {});

}  // namespace contexture
