#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "chat/chat_formats.h"
#include "cli/chat_session.h"
#include "cli/command.h"
#include "cli/progress_line.h"
#include "cli/ring_flags.h"
#include "cli/sampling_flags.h"
#include "cli/static_flags.h"
#include "engine/conversation.h"
#include "engine/prefix_report.h"

namespace contexture::cli {
namespace {

constexpr std::string_view kCommandNames[] = {"/reset", "/save", "/info", "/help", "/quit", "/exit"};
constexpr const char* kCommands =
    "  /reset        begin anew (the system message stays)\n"
    "  /save [FILE]  write the conversation as JSON, to FILE or to the one of --session\n"
    "  /info         how much of the context is used, and how fast it goes\n"
    "  /help         this\n"
    "  /quit         end; so does Ctrl-D\n"
    "A line that ends in \\ goes on in the next one; \"\"\" opens and closes a message of several lines.\n"
    "Ctrl-C stops an answer and keeps what was said.\n";

/// Reads messages: a line each, or several (see kCommands). Prompts go to stderr, so that stdout holds the answers.
/// Over ranks, rank 0 reads for all.
class Input {
 public:
  explicit Input(Communicator* ranks) : ranks_(ranks) {
    if (ranks_) interactive_ = broadcast_text(*ranks_, 0, interactive_ ? "yes" : "") == "yes";
  }
  bool interactive() const { return interactive_; }

  /// False at the end of the input.
  bool read(std::string& message) const {
    if (!ranks_) return read_here(message);
    std::string told;  // a mark, then the message
    if (ranks_->rank() == 0 && read_here(message)) told = "+" + message;
    const std::chrono::seconds patience = ranks_->patience();
    ranks_->set_patience(std::chrono::hours(24 * 365));  // a person may think for long
    told = broadcast_text(*ranks_, 0, told);
    ranks_->set_patience(patience);
    if (told.empty()) return false;
    message = told.substr(1);
    return true;
  }

 private:
  bool read_here(std::string& message) const {
    if (!read_line("> ", message)) return false;
    constexpr std::string_view quotes = "\"\"\"";
    bool open = true;  // the input did not end within the message; where it did, what is there is the message
    if (message.starts_with(quotes)) {
      message.erase(0, quotes.size());
      while (open && !message.ends_with(quotes)) open = append_line(message);
      if (open) message.erase(message.size() - quotes.size());
    } else {
      while (open && message.ends_with('\\')) {
        message.pop_back();
        open = append_line(message);
      }
    }
    return true;
  }

  /// False at the end of the input, and where a signal ends the wait.
  bool read_line(const char* prompt, std::string& line) const {
    if (interactive_) tell("{}", prompt);
    size_t end = 0;
    while ((end = unread_.find('\n', end)) == unread_.npos) {
      end = unread_.size();
      if (read_some(STDIN_FILENO, unread_)) continue;
      if (unread_.empty() || interrupted()) return false;
      unread_ += '\n';
    }
    line = unread_.substr(0, end);
    unread_.erase(0, end + 1);
    if (line.ends_with('\r')) line.pop_back();
    return true;
  }

  bool append_line(std::string& message) const {
    std::string line;
    if (!read_line(". ", line)) return false;
    message += '\n' + line;
    return true;
  }

  Communicator* ranks_;
  mutable std::string unread_;  // of stdin
  bool interactive_ = isatty(STDIN_FILENO);
};

struct Chat {
  ModelFlags model;
  CacheFlags cache;
  SamplingFlags sampling;
  StaticFlags compiled;
  RingFlags ring;
  std::string system, format, session;
  bool parse_special = false;

  void run() {
    if (ring.given({{"--context-dir", compiled.given()}})) return run_ring();
    if (compiled.given()) return run_compiled();
    const OpenedModel opened = model.open();
    const Tokenizer& tokenizer = opened.need_tokenizer();
    const ChatTemplate chat_template =
        ChatTemplate::choose(opened.file.metadata, tokenizer.vocabulary(), format, parse_special);
    RunOptions options = cache.options(opened.file.metadata);
    if (options.cache.context == 0) options.cache.context = default_chat_context(read_config(opened.file.metadata));
    Runtime runtime(opened.file, options);
    CachedConversation conversation(runtime, tokenizer, chat_template);
    const CachePlan& plan = runtime.plan().cache;
    talk(conversation, sampling.options(opened.file.metadata),
         {plan.context,
          fmt::format("{} ({}, K {}, V {})", human_bytes(runtime.plan().cache_bytes), plan.layout,
                      contexture::info(plan.shape.k_format).name, contexture::info(plan.shape.v_format).name)});
  }

 private:
  /// How the context is held, for /info.
  struct Held {
    size_t context;
    std::string cache;
  };

  void run_ring() {
    std::optional<SharedModel> shared;
    ring.run([&] { shared.emplace(model.open()); },
             [&](Communicator& ranks) {
               Chat rank = *this;
               rank.run_rank(*shared, ranks);
             });
  }

  /// All ranks hold the same conversation; rank 0 reads and shows it.
  void run_rank(SharedModel& shared, Communicator& ranks) {
    const OpenedModel& opened = shared.opened();
    const Tokenizer& tokenizer = opened.need_tokenizer();
    GenerateOptions generate = sampling.options(opened.file.metadata);
    const ChatTemplate chat_template =
        ChatTemplate::choose(opened.file.metadata, tokenizer.vocabulary(), format, parse_special);
    agree_on_sampling(ranks, generate);
    RunOptions options = cache.options(opened.file.metadata);
    options.ranks = static_cast<size_t>(ranks.ranks());
    options.threads = ring.threads_of_rank(cache.threads);
    if (options.cache.context == 0) options.cache.context = default_chat_context(read_config(opened.file.metadata));
    const std::unique_ptr<Runtime> runtime = shared.runtime(options, ranks, ring);
    ring_ = runtime->ring();
    ring_->watch(&interrupted());
    CachedConversation conversation(*runtime, tokenizer, chat_template);
    const CachePlan& plan = runtime->plan().cache;
    talk(conversation, generate,
         {plan.context, fmt::format("{} a rank of {} ({}, K {}, V {})", human_bytes(runtime->plan().cache_bytes),
                                    ranks.ranks(), plan.layout, contexture::info(plan.shape.k_format).name,
                                    contexture::info(plan.shape.v_format).name)});
  }

  /// The one whose words are seen.
  bool speaks() const { return !ring_ || ring_->ranks().rank() == 0; }

  void run_compiled() {
    StaticModel loaded(compiled.options(model.tokenizer, cache.threads));
    const Metadata& metadata = loaded.metadata_file().metadata;
    const Tokenizer& tokenizer = loaded.tokenizer();
    const ChatTemplate chat_template = ChatTemplate::choose(metadata, tokenizer.vocabulary(), format, parse_special);
    StaticRunner& runner = loaded.runner();
    CachedConversation conversation(static_turns(runner, tokenizer), tokenizer, chat_template);
    talk(conversation, sampling.options(metadata),
         {runner.capacity(), fmt::format("{} (static graphs, {}, mode {})", human_bytes(runner.kv().bytes()),
                                         name(runner.kv().update()), name(runner.mode()))});
  }

  void talk(CachedConversation& conversation, GenerateOptions generate, const Held& held) {
    ChatSession first = first_session();
    if (first.seed && !sampling.has_seed()) generate.seed = *first.seed;
    seed_ = generate.seed;
    conversation.restore(std::move(first.conversation));
    const Input input(ring_ ? &ring_->ranks() : nullptr);
    if (input.interactive() && speaks()) tell("seed {}; /help tells what else there is\n", generate.seed);
    converse(conversation, generate, held, input);
    // Whoever ends it otherwise has had the choice to /save.
    if (interrupted() && speaks() && !session.empty() && last_.prompt_tokens > 0) {
      if (!save(session, conversation)) throw LostWork("the conversation is not kept");
    }
  }

  void converse(CachedConversation& conversation, const GenerateOptions& generate, const Held& held,
                const Input& input) {
    for (std::string message; next_message(input, message);) {
      if (message.empty()) continue;
      if (is_command(message, input)) {
        if (!obey(message, conversation, held)) return;
      } else if (!answer(valid_utf8(message), conversation, generate, input)) {
        return;
      }
    }
    if (input.interactive() && speaks()) tell("\n");
  }

  bool next_message(const Input& input, std::string& message) const {
    if (speaks()) catch_interrupts();
    return input.read(message);
  }

  /// A person who mistypes a command is told so; a file's lines may begin as they like.
  static bool is_command(const std::string& message, const Input& input) {
    if (!message.starts_with('/') || message.find('\n') != message.npos) return false;
    const std::string_view word = std::string_view(message).substr(0, message.find(' '));
    return input.interactive() || std::ranges::find(kCommandNames, word) != std::end(kCommandNames);
  }

  ChatSession saved_session() const {
    std::error_code error;
    const bool there = !session.empty() && std::filesystem::exists(session, error);
    if (error) fail("cannot look for {}: {}; check the path", printable(session, 400), error.message());
    return there ? read_chat_session(session) : ChatSession();
  }

  /// What rank 0 has in its file, at all ranks.
  ChatSession told_session() const {
    const std::string here = speaks() ? as_json(saved_session()).dump() : "";
    return chat_session_of(nlohmann::json::parse(broadcast_text(ring_->ranks(), 0, here)), session);
  }

  /// The conversation to begin with. Its seed is gone on with unless one was given.
  ChatSession first_session() const {
    ChatSession first = ring_ ? told_session() : saved_session();
    std::vector<ChatMessage>& messages = first.conversation.messages;
    if (system.empty()) return first;
    if (!messages.empty() && messages[0].role == "system") messages.erase(messages.begin());
    messages.insert(messages.begin(), {"system", system});
    return first;
  }

  /// False where the conversation is to end.
  bool answer(const std::string& message, CachedConversation& conversation, const GenerateOptions& generate,
              const Input& input) {
    if (speaks()) catch_interrupts(2);  // an impatient second one must not take the conversation with it
    ProgressLine progress;
    GenerationCallbacks callbacks;
    callbacks.cancelled = ring_ ? &ring_->cancelled() : &interrupted();
    if (ring_) ring_->forget_cancellation();
    if (speaks()) {
      callbacks.on_token = [](const GeneratedToken& token) {
        std::cout << token.text << std::flush;
        return true;
      };
      callbacks.on_prefill = [&](size_t done, size_t total) { progress.show(done, total); };
    }
    try {
      last_ = conversation.say(message, generate, callbacks);
      progress.clear();
    } catch (const Error& error) {
      if (!input.interactive()) throw;
      if (!speaks()) return true;
      progress.clear();
      tell("error: {}\n", error.what());  // a message too long, a template that refuses: ask otherwise
      return true;
    }
    if (speaks()) {
      std::cout << std::endl;
      report(conversation);
    }
    return input.interactive() || last_.finish_reason != FinishReason::cancelled;
  }

  void report(const CachedConversation& conversation) const {
    if (conversation.dropped_turns() > 0) {
      tell("(the context was full: the oldest {} turns are forgotten)\n", conversation.dropped_turns());
    }
    if (last_.finish_reason == FinishReason::length)
      tell("(stopped after {} tokens; see -n)\n", last_.token_ids.size());
    if (last_.finish_reason == FinishReason::context) tell("(stopped: the context is full; see -c)\n");
    spdlog::info("{}; {}", explain_prefix(last_), speed());
  }

  std::string speed() const {
    const auto rate = [](size_t tokens, double seconds) {
      return seconds > 0 ? fmt::format("{:.1f}", static_cast<double>(tokens) / seconds) : std::string("-");
    };
    const size_t decoded = last_.token_ids.empty() ? 0 : last_.token_ids.size() - 1;
    return fmt::format("read at {}/s, answered at {}/s", rate(last_.prefilled_tokens, last_.prefill_seconds),
                       rate(decoded, last_.decode_seconds));
  }

  /// Commands answer on stderr. False where the conversation is to end.
  bool obey(const std::string& line, CachedConversation& conversation, const Held& held) {
    const size_t space = std::min(line.find(' '), line.size());
    const std::string command = line.substr(0, space);
    const std::string argument = line.substr(std::min(line.find_first_not_of(' ', space), line.size()));
    if (command == "/quit" || command == "/exit") return false;
    if (command == "/help" && speaks()) {
      tell("{}", kCommands);
    } else if (command == "/reset") {
      std::vector<ChatMessage> messages = conversation.messages();
      std::erase_if(messages, [](const ChatMessage& m) { return m.role != "system"; });
      conversation.set_messages(std::move(messages));
      if (speaks()) tell("(a new conversation)\n");
    } else if (!speaks()) {
      return true;
    } else if (command == "/save") {
      save(argument.empty() ? session : argument, conversation);
    } else if (command == "/info") {
      info(conversation, held);
    } else {
      tell("there is no command {}; /help lists them\n", printable(command));
    }
    return true;
  }

  /// False where it cannot be.
  bool save(const std::string& path, const CachedConversation& conversation) const {
    if (path.empty()) {
      tell("say where to: /save FILE\n");
      return false;
    }
    try {
      std::error_code ignored;
      const bool is_there = std::filesystem::exists(path, ignored) && std::filesystem::file_size(path, ignored) > 0;
      if (is_there) (void)read_chat_session(path);  // what is no conversation is not replaced
      write_chat_session(path, {conversation.saved(), seed_});
      tell("(saved to {})\n", printable(path, 400));
      return true;
    } catch (const Error& error) {
      tell("error: {}\n", error.what());
      return false;
    }
  }

  void info(const CachedConversation& conversation, const Held& held) const {
    const auto is_answer = [](const ChatMessage& m) { return m.role == "assistant"; };
    const std::vector<ChatMessage>& messages = conversation.messages();
    tell("context  {} of {} tokens\n", conversation.context_tokens(), held.context);
    tell("cache    {}\n", held.cache);
    tell("turns    {}\n", std::count_if(messages.begin(), messages.end(), is_answer));
    if (last_.prompt_tokens > 0) tell("speed    {}\n", speed());
  }

  Generation last_;
  uint64_t seed_ = 0;
  RingForward* ring_ = nullptr;  // where ranks share the context
};

std::string format_help() {
  std::string text = "how the model was taught to read a conversation (default: the chat template in its file):";
  for (const ChatFormat& format : chat_formats()) text += fmt::format("\n{}: {}", format.name, format.models);
  return text;
}

}  // namespace

void add_chat(CLI::App& app) {
  CLI::App* command = app.add_subcommand("chat", "talk with a model in the terminal; /help inside tells more");
  auto self = std::make_shared<Chat>();
  self->model.add_to(*command);
  command->remove_option(command->get_option("--json"));
  self->cache.add_to(*command);
  command->get_option("--context")->description("tokens of context (default: the model's own, at most 4096)");
  command->add_option("--system", self->system, "what the model is told before you speak")->option_text("TEXT");
  std::vector<std::string> names;
  for (const ChatFormat& format : chat_formats()) names.emplace_back(format.name);
  command->add_option("--chat-format", self->format, format_help())->check(CLI::IsMember(names));
  command->add_flag("--parse-special", self->parse_special,
                    "a control token's text in a message (\"<|im_end|>\") is that token, so that a message can write "
                    "turns; without it, such text is text");
  self->compiled.add_to(*command);
  self->ring.add_to(*command);
  command
      ->add_option(
          "--session", self->session,
          "a conversation to go on with, where it is there; /save writes to it: its messages as JSON, "
          "which are read again; a signal that ends it does the same (run --session keeps the context itself, in "
          "another kind of file)")
      ->option_text("FILE");
  self->sampling.add_to(*command);
  command->get_option("--predict")->description("tokens of an answer at most; -1: until the context is full");
  command->footer(
      std::string("Inside:\n") + kCommands +
      "Where stdin is no terminal, every line is a message (but for those commands, \\ and \"\"\" as above; "
      "another line may begin with /), and stdout holds the answers alone.");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
