#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "contexture/error.h"

/// Contexture for programs: load a model, complete a text, stop at will. Everything here throws contexture::Error where
/// the work cannot be done.
namespace contexture {

/// What is loaded, and how its context is held.
struct LoadOptions {
  std::string model_path = {};      ///< what the program takes as -m: a GGUF file, a Hugging Face folder...
  std::string tokenizer_path = {};  ///< empty: inside the model file or beside it
  int threads = 0;                  ///< 0: one a physical core
  size_t context = 0;               ///< tokens of prompt and answer; 0: what each call needs, up to the model's own
  size_t sequences = 1;             ///< that generate_all runs side by side

  std::string cache = "paged";   ///< or "contiguous", "mixed"
  std::string k_format = "f16";  ///< f32, f16, bf16, q8_0 or q4_0
  std::string v_format = "f16";
  std::optional<bool> rotate =
      {};                   ///< K and V before they are stored, against outliers; by itself where q4_0 holds them
  size_t page_tokens = 32;  ///< paged: a power of two from 8 to 256
  size_t pool_tokens = 0;   ///< paged: of all sequences together; 0: enough for each to fill its context
  size_t hot_tokens = 256;  ///< mixed: the last so many tokens are held in k_format and v_format,
  size_t sink_tokens = 4;   ///< and the first so many,
  std::string cold_k_format = "q4_0";  ///< those between in these
  std::string cold_v_format = "q4_0";
};

/// What a text leaves behind, beside its tokens, to one that goes on with it: the two choose and show what one would
/// have.
struct Resume {
  uint64_t draws = 0;      ///< random numbers of the seed that are used up
  size_t open_tokens = 0;  ///< the last so many were not shown whole: a character or a stop text may go on
  size_t shown_bytes = 0;  ///< of their text
};

/// How the next token is chosen, and when to stop. Filters apply in this order: repetition penalty, top-k, top-p,
/// min-p, temperature.
struct GenerateOptions {
  size_t max_tokens = 512;
  float temperature = 0.8f;            ///< 0: always the likeliest token
  int top_k = 40;                      ///< 0: off
  float top_p = 0.95f;                 ///< 1: off
  float min_p = 0.05f;                 ///< 0: off
  float repeat_penalty = 1.0f;         ///< 1: off; over the last 64 tokens, the prompt's included
  uint64_t seed = 0;                   ///< same seed, same text
  Resume resume = {};                  ///< where the prompt is a text that goes on: what it left behind
  bool resumable = false;              ///< text that is cut may go on: what cannot be shown yet is left to that
  bool ignore_end = false;             ///< end tokens are never chosen
  bool parse_special = true;           ///< "<|eot_id|>" in the prompt is that token, not text
  bool add_begin = true;               ///< the begin token precedes the prompt, where the model wants one
  std::vector<std::string> stop = {};  ///< ends before the first of these texts
};

/// A token as it is made. Text that was held back until the end comes last, with id -1.
struct GeneratedToken {
  int32_t id = 0;
  float log_probability = 0;  ///< natural, of the model's own distribution (before any filter)
  std::string_view text;  ///< whole characters that it completes; empty while one is open, or a stop text may follow
};

enum class FinishReason : uint8_t {
  end,        ///< the model chose an end token
  stop,       ///< a stop text appeared
  length,     ///< max_tokens were made
  context,    ///< the context is full
  cancelled,  ///< cancel() was called, or the callback said so
};
std::string_view name(FinishReason reason);

/// What the cache held of a prompt already, and why not more.
struct PrefixReport {
  struct Difference {
    size_t position = 0;  ///< in the prompt, from 0
    int32_t held = 0;     ///< the token that the cache had there
    int32_t given = 0;    ///< the prompt's
    std::string held_text = {};
    std::string given_text = {};
  };
  size_t reused_tokens = 0;  ///< of the prompt
  size_t lost_tokens = 0;    ///< equal to the prompt's, but no longer held in the form that the next token must see: a
                             ///< mixed cache keeps the hot copy of the last tokens only
  std::optional<Difference> first_difference = {};  ///< nothing where no token held contradicts the prompt, whose last
                                                    ///< one is always run and not compared
};

struct Generation {
  std::string text;                      ///< without the prompt, the stop text and end tokens
  std::vector<int32_t> token_ids;        ///< generated ones; an end token is not among them
  std::vector<float> log_probabilities;  ///< one a token
  size_t prompt_tokens = 0;
  size_t prefilled_tokens = 0;   ///< of the prompt: those that had to be run, since the cache did not hold them
  size_t recomputed_tokens = 0;  ///< run again, because the pool was full and others came first (generate_all)
  PrefixReport prefix = {};
  Resume resume = {};      ///< for a text that goes on: with the first kept_tokens, then cut_text,
  size_t kept_tokens = 0;  ///< of the prompt and those generated: all, but where a stop text came up to the last one
  std::string cut_text;    ///< that was shown whole; and what was shown after it, the beginning of another token
  FinishReason finish_reason = FinishReason::length;
  double prefill_seconds = 0;
  double decode_seconds = 0;  ///< of all tokens but the first, which comes with the prefill
};

/// One message of a conversation.
struct ChatMessage {
  std::string role;  ///< "system", "user" or "assistant"
  std::string content;

  bool operator==(const ChatMessage&) const = default;
};

/// What a conversation starts from.
struct ConversationOptions {
  std::string system = {};       ///< what the assistant is told beforehand; empty: nothing
  std::string chat_format = {};  ///< "chatml", "llama3"...; empty: the chat template that the model file brings
  bool parse_special = false;    ///< "<|eot_id|>" in a message is that token, so that a message can write turns
};

/// One of several prompts that are completed side by side.
struct GenerationRequest {
  std::string prompt = {};
  GenerateOptions options = {};
};

/// A loaded model with the memory to run it. Movable. One generate at a time.
class LanguageModel {
 public:
  explicit LanguageModel(const LoadOptions& options);
  LanguageModel(LanguageModel&&) noexcept;
  ~LanguageModel();

  /// Completes a prompt. `on_token` sees every token as it is made; it returns false to stop. What a paged cache still
  /// holds of prompts before that began alike is not run again (Generation::prefix).
  Generation generate(std::string_view prompt, const GenerateOptions& options = {},
                      const std::function<bool(const GeneratedToken&)>& on_token = {});

  /// Completes prompts side by side, LoadOptions::sequences at a time, in the order given. Each gets the text that
  /// generate gives it alone, however small the pool: where it is full, the youngest waits and is computed again.
  /// `on_token` is told which of the requests made the token; where it returns false, that one stops.
  std::vector<Generation> generate_all(std::span<const GenerationRequest> requests,
                                       const std::function<bool(size_t request, const GeneratedToken&)>& on_token = {});

  /// Ends a running generate or generate_all after the present layer of its present step. From any thread, and from a
  /// signal handler.
  void cancel() noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// A conversation with a model of its own. Its history stays in the cache: a turn costs its new tokens only. Movable.
class Conversation {
 public:
  /// `load.context` 0: what the model was made for, at most 4096 tokens.
  explicit Conversation(const LoadOptions& load, const ConversationOptions& options = {});
  Conversation(Conversation&&) noexcept;
  ~Conversation();

  /// The assistant's answer. Where the context is full, the oldest turns are forgotten. After cancel(), what was said
  /// so far stays as the answer.
  Generation say(std::string_view message, const GenerateOptions& options = {},
                 const std::function<bool(const GeneratedToken&)>& on_token = {});

  const std::vector<ChatMessage>& messages() const;

  /// Ends a running say(), as LanguageModel::cancel does.
  void cancel() noexcept;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace contexture
