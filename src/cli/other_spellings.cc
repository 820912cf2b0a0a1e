#include "cli/other_spellings.h"

#include <algorithm>
#include <cctype>
#include <iterator>
#include <optional>
#include <string_view>

#include "base/error.h"
#include "base/log.h"

namespace contexture::cli {
namespace {

/// A flag that llama.cpp has and we spell otherwise or do without.
struct OtherFlag {
  enum class Value { none, perhaps, needed };
  std::vector<std::string_view> names;
  Value value;
  std::string_view ours = {};     // our spelling of it
  std::string_view nothing = {};  // why it means nothing here...
  std::string_view but = {};      // ...unless its value is another than this, which is refused: why
  std::string_view refused = {};  // why it cannot be followed at all
};

const std::vector<OtherFlag>& other_flags() {
  using enum OtherFlag::Value;
  static const std::vector<OtherFlag> flags = {
      {.names = {"-ctk", "--cache-type-k"}, .value = needed, .ours = "--k-format"},
      {.names = {"-ctv", "--cache-type-v"}, .value = needed, .ours = "--v-format"},
      {.names = {"--ctx-size"}, .value = needed, .ours = "--context"},
      {.names = {"--n-predict"}, .value = needed, .ours = "--predict"},
      {.names = {"--reverse-prompt"}, .value = needed, .ours = "--stop"},
      {.names = {"--temperature"}, .value = needed, .ours = "--temp"},
      {.names = {"-l"}, .value = needed, .ours = "--logit-bias"},
      {.names = {"--samplers", "--sampler-seq", "--sampling-seq"},
       .value = needed,
       .refused = "the steps of sampling have one order, llama.cpp's; turn off what is not wanted"},
      {.names = {"--dynatemp-range"},
       .value = needed,
       .nothing = "the temperature is the same for every token",
       .but = "0",
       .refused = "the temperature is the same for every token; leave it out, or give 0"},
      {.names = {"-sys", "--system-prompt"}, .value = needed, .ours = "--system"},
      {.names = {"-b", "--batch-size", "-ub", "--ubatch-size"},
       .value = needed,
       .nothing = "steps are as large as the memory plan says, and their size changes no answer"},
      {.names = {"-fa", "--flash-attn"}, .value = perhaps, .nothing = "attention is always computed so"},
      {.names = {"--mlock"}, .value = none, .nothing = "weights are read with every token, and so stay in memory"},
      {.names = {"--no-mmap"}, .value = none, .nothing = "weights are copied into memory of their own anyhow"},
      {.names = {"--mmap"}, .value = none, .nothing = "the file is mapped anyhow, and given back once it is read"},
      {.names = {"-ngl", "--gpu-layers", "--n-gpu-layers"},
       .value = needed,
       .nothing = "all layers are computed on the processor",
       .but = "0",
       .refused = "there is no GPU backend; leave it out, or give 0"},
      {.names = {"-hf", "-hfr", "--hf-repo", "-hff", "--hf-file", "-mu", "--model-url"},
       .value = needed,
       .refused = "this program downloads nothing; fetch the file, and give it with -m"},
      {.names = {"-tb", "--threads-batch"},
       .value = needed,
       .refused = "prompts and answers are computed by the same threads; give -t alone"},
  };
  return flags;
}

const OtherFlag* find_other(std::string_view name) {
  for (const OtherFlag& flag : other_flags()) {
    if (std::ranges::find(flag.names, name) != flag.names.end()) return &flag;
  }
  return nullptr;
}

[[noreturn]] void refuse(std::string_view name, std::string_view why) {
  throw CLI::ParseError(fmt::format("{}: {}", name, why), CLI::ExitCodes::InvalidError);
}

/// Of the command or of those above it.
const CLI::Option* find_option(const CLI::App* command, const std::string& name) {
  for (; command; command = command->get_parent()) {
    if (const CLI::Option* option = command->get_option_no_throw(name)) return option;
  }
  return nullptr;
}

bool takes_value(const CLI::Option& option) {
  return option.get_items_expected_min() > 0;
}

class Reader {
 public:
  Reader(const CLI::App& app, const std::vector<std::string>& arguments) : command_(&app), arguments_(arguments) {}

  std::vector<std::string> read() {
    while (next_ < arguments_.size()) {
      const std::string& argument = arguments_[next_++];
      if (argument == "--") {
        out_.push_back(argument);
        out_.insert(out_.end(), arguments_.begin() + static_cast<ptrdiff_t>(next_), arguments_.end());
        break;
      }
      if (argument.size() > 1 && argument[0] == '-') {
        read_flag(argument);
      } else {
        const auto subcommands =
            command_->get_subcommands([&](const CLI::App* s) { return s->get_name() == argument; });
        if (!subcommands.empty()) command_ = subcommands.front();
        out_.push_back(argument);
      }
    }
    return std::move(out_);
  }

 private:
  void read_flag(const std::string& argument) {
    const bool is_long = argument.starts_with("--");
    const size_t equals = is_long ? argument.find('=') : argument.npos;
    const std::string name = argument.substr(0, equals);
    const CLI::Option* ours = find_option(command_, name);
    if (ours) {
      out_.push_back(argument);
      if (equals == argument.npos && takes_value(*ours) && next_ < arguments_.size())
        out_.push_back(arguments_[next_++]);
      return;
    }
    const std::optional<std::string> glued =
        equals == argument.npos ? std::nullopt : std::optional(argument.substr(equals + 1));
    if (const OtherFlag* other = find_other(name)) return read_other(*other, name, glued);
    if (!is_long && argument.size() > 2 && std::isalpha(static_cast<unsigned char>(argument[2]))) refuse_word(argument);
    out_.push_back(argument);
  }

  void read_other(const OtherFlag& flag, const std::string& name, std::optional<std::string> value) {
    const bool is_there = next_ < arguments_.size();
    const auto is_setting = [](const std::string& word) {
      constexpr std::string_view words[] = {"on", "off", "auto", "0", "1", "enabled", "disabled"};
      return std::ranges::find(words, word) != std::end(words);
    };
    const bool needed = flag.value == OtherFlag::Value::needed;
    if (!value && is_there && (needed || (flag.value == OtherFlag::Value::perhaps && is_setting(arguments_[next_])))) {
      value = arguments_[next_++];
    }
    if (!flag.ours.empty()) {
      out_.emplace_back(flag.ours);
      if (value) out_.push_back(*value);
      return;
    }
    if (needed && !value) refuse(name, "it takes a value");
    if (!flag.refused.empty() && (flag.nothing.empty() || *value != flag.but)) refuse(name, flag.refused);
    tell("{} has no effect: {}\n", name, flag.nothing);
  }

  /// Several letters behind one dash: flags that take nothing (-vv), or one that is not known.
  void refuse_word(const std::string& argument) const {
    const CLI::Option* first = find_option(command_, argument.substr(0, 2));
    const bool all_flags = std::all_of(argument.begin() + 1, argument.end(), [&](char letter) {
      const CLI::Option* option = find_option(command_, std::string("-") + letter);
      return option && !takes_value(*option);
    });
    if (all_flags) return;
    std::string why = "there is no such flag";
    if (first && takes_value(*first)) {
      why += fmt::format("; for {} write {} {}", argument.substr(0, 2), argument.substr(0, 2),
                         printable(argument.substr(2)));
    }
    refuse(printable(argument), why);
  }

  const CLI::App* command_;
  const std::vector<std::string>& arguments_;
  size_t next_ = 0;
  std::vector<std::string> out_;
};

}  // namespace

std::vector<std::string> with_known_spellings(const CLI::App& app, const std::vector<std::string>& arguments) {
  return Reader(app, arguments).read();
}

}  // namespace contexture::cli
