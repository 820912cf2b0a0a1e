#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <iostream>

#include "base/error.h"
#include "base/log.h"
#include "chat/chat_formats.h"
#include "cli/chat_session.h"
#include "cli/command.h"
#include "cli/host.h"
#include "cli/progress_line.h"
#include "cli/sampling_flags.h"
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
class Input {
 public:
  bool interactive() const { return interactive_; }

  /// False at the end of the input.
  bool read(std::string& message) const {
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

 private:
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
    with_host({model, cache, ring, &compiled}, [this](Host& host) { talk(host); });
  }

 private:
  void talk(Host& host) {
    const Tokenizer& tokenizer = host.tokenizer();
    const ChatTemplate chat_template =
        ChatTemplate::choose(host.metadata(), tokenizer.vocabulary(), format, parse_special);
    RunOptions options;
    if (!compiled.given()) {
      options = cache.options(host.metadata());
      if (options.cache.context == 0) options.cache.context = default_chat_context(read_config(host.metadata()));
    }
    host.start(options);
    CachedConversation conversation(host.executor(), tokenizer, chat_template);
    talk(conversation, sampling.options(host.metadata()), {host.executor().capacities().context, host.describe()});
  }

  /// How the context is held, for /info.
  struct Held {
    size_t context;
    std::string cache;
  };

  void talk(CachedConversation& conversation, GenerateOptions generate, const Held& held) {
    ChatSession first = first_session();
    if (first.seed && !sampling.has_seed()) generate.sampling.seed = *first.seed;
    seed_ = generate.sampling.seed;
    conversation.restore(std::move(first.conversation));
    const Input input;
    if (input.interactive()) tell("seed {}; /help tells what else there is\n", generate.sampling.seed);
    converse(conversation, generate, held, input);
    // Whoever ends it otherwise has had the choice to /save.
    if (interrupted() && !session.empty() && last_.prompt_tokens > 0) {
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
    if (input.interactive()) tell("\n");
  }

  bool next_message(const Input& input, std::string& message) const {
    catch_interrupts();
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

  /// The conversation to begin with. Its seed is gone on with unless one was given.
  ChatSession first_session() const {
    ChatSession first = saved_session();
    std::vector<ChatMessage>& messages = first.conversation.messages;
    if (system.empty()) return first;
    if (!messages.empty() && messages[0].role == "system") messages.erase(messages.begin());
    messages.insert(messages.begin(), {"system", system});
    return first;
  }

  /// False where the conversation is to end.
  bool answer(const std::string& message, CachedConversation& conversation, const GenerateOptions& generate,
              const Input& input) {
    catch_interrupts(2);  // an impatient second one must not take the conversation with it
    ProgressLine progress;
    GenerationCallbacks callbacks;
    callbacks.cancelled = &interrupted();
    callbacks.on_token = [](const GeneratedToken& token) {
      std::cout << token.text << std::flush;
      return true;
    };
    callbacks.on_prefill = [&](size_t done, size_t total) { progress.show(done, total); };
    try {
      last_ = conversation.say(message, generate, callbacks);
      progress.clear();
    } catch (const Error& error) {
      if (!input.interactive()) throw;
      progress.clear();
      tell("error: {}\n", error.what());  // a message too long, a template that refuses: ask otherwise
      return true;
    }
    std::cout << std::endl;
    report(conversation);
    return input.interactive() || last_.finish_reason != FinishReason::cancelled;
  }

  void report(const CachedConversation& conversation) const {
    if (conversation.dropped_turns() > 0) {
      tell("(the context was full: the oldest {} turns are forgotten)\n", conversation.dropped_turns());
    }
    if (last_.finish_reason == FinishReason::length)
      tell("(stopped after {} tokens; see -n)\n", last_.token_ids.size());
    if (last_.finish_reason == FinishReason::context) tell("(stopped: the context is full; see -c)\n");
    log_info("{}; {}", explain_prefix(last_), speed());
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
    if (command == "/help") {
      tell("{}", kCommands);
    } else if (command == "/reset") {
      std::vector<ChatMessage> messages = conversation.messages();
      std::erase_if(messages, [](const ChatMessage& m) { return m.role != "system"; });
      conversation.set_messages(std::move(messages));
      tell("(a new conversation)\n");
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
