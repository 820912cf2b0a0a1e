#include <fmt/ranges.h>

#include <algorithm>
#include <iostream>

#include "cli/command.h"

namespace contexture::cli {
namespace {

std::string joined(const std::vector<std::string>& words, const char* separator = " ") {
  return fmt::format("{}", fmt::join(words, separator));
}

/// "-m", "--model".
std::vector<std::string> spellings(const CLI::Option& option) {
  std::vector<std::string> names;
  for (const std::string& name : option.get_snames()) names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) names.push_back("--" + name);
  return names;
}

/// The words that an option takes, where it takes some of a list: CLI11 shows them as "TEXT:{a,b}".
std::string choices(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  const size_t open = type.find('{'), close = type.rfind('}');
  if (open == type.npos || close == type.npos) return {};
  std::string words = type.substr(open + 1, close - open - 1);
  for (char& c : words) c = c == ',' ? ' ' : c;
  return words;
}

bool takes_file(const CLI::Option& option) {
  const std::string& text = option.get_option_text();
  return text == "PATH" || text == "FILE" || text == "FILE.npy" || text == "DIR" || text == "IN" || text == "OUT";
}

constexpr auto all = [](const CLI::App*) { return true; };

/// The options of a subcommand and of those below it, one of each name.
std::vector<const CLI::Option*> options_of(const CLI::App& command) {
  std::vector<const CLI::Option*> options = command.get_options();
  for (const CLI::App* below : command.get_subcommands(all)) {
    for (const CLI::Option* option : below->get_options()) {
      const auto is_same = [&](const CLI::Option* other) { return other->get_name() == option->get_name(); };
      if (std::none_of(options.begin(), options.end(), is_same)) options.push_back(option);
    }
  }
  return options;
}

/// What to offer after an option of a subcommand, as branches of a case statement.
std::string branches_of(const CLI::App& command) {
  std::string text;
  for (const CLI::Option* option : options_of(command)) {
    if (!option->nonpositional() || option->get_type_size_max() == 0) continue;  // flags take nothing
    std::vector<std::string> patterns;
    for (const std::string& name : spellings(*option)) {
      patterns.push_back(fmt::format("'{} {}'", command.get_name(), name));
    }
    const std::string words = choices(*option);
    const std::string offers = !words.empty()        ? fmt::format("_contexture_offer -W '{}' -- \"$word\"", words)
                               : takes_file(*option) ? "_contexture_offer -f -- \"$word\""
                                                     : "COMPREPLY=()";
    text += fmt::format("    {}) {}; return ;;\n", joined(patterns, "|"), offers);
  }
  return text;
}

/// A function for bash that knows the subcommands and options of the program as it is.
std::string bash_script(const CLI::App& app) {
  std::vector<std::string> commands;
  std::string branches, options;
  for (const CLI::App* command : app.get_subcommands(all)) {
    commands.push_back(command->get_name());
    branches += branches_of(*command);
    std::vector<std::string> words;
    for (const CLI::App* below : command->get_subcommands(all)) words.push_back(below->get_name());
    for (const CLI::Option* option : options_of(*command)) {
      if (option->get_name().empty() || !option->nonpositional()) {
        const std::string choice = choices(*option);
        if (!choice.empty()) words.push_back(choice);
        continue;
      }
      for (std::string& name : spellings(*option)) words.push_back(std::move(name));
    }
    options += fmt::format("    {}) words='{}' ;;\n", command->get_name(), joined(words));
  }
  return fmt::format(
      R"sh(# Completes the words of contexture.
_contexture_offer() {{  # a line each, spaces and stars as they are; zsh has no such mapfile
  local line
  COMPREPLY=()
  while IFS= read -r line; do [[ -z $line ]] || COMPREPLY+=("$line"); done <<<"$(compgen "$@")"
}}
_contexture() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command='' words='' i
  for ((i = 1; i < COMP_CWORD; ++i)); do
    case ${{COMP_WORDS[i]}} in {}) command=${{COMP_WORDS[i]}}; break ;; esac
  done
  case "$command $before" in
{}  esac
  case $command in
    '') words='{} --help --version -v --log-level' ;;
{}  esac
  _contexture_offer -W "$words" -- "$word"
  [[ ${{#COMPREPLY[@]}} -gt 0 || $word == -* ]] || _contexture_offer -f -- "$word"
}}
complete -o filenames -F _contexture contexture
)sh",
      joined(commands, "|"), branches, joined(commands), options);
}

}  // namespace

void add_completion(CLI::App& app) {
  CLI::App* command = app.add_subcommand("completion", "print a script that completes contexture's words in a shell");
  auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "the shell")->required()->check(CLI::IsMember({"bash", "zsh"}));
  command->footer(
      "bash: put this into ~/.bashrc:  eval \"$(contexture completion bash)\"\n"
      "zsh:  put this into ~/.zshrc:   eval \"$(contexture completion zsh)\"");
  command->callback([&app, shell] {
    if (*shell == "zsh")
      std::cout << "autoload -U +X compinit && compinit\nautoload -U +X bashcompinit && bashcompinit\n";
    std::cout << bash_script(app);
  });
}

}  // namespace contexture::cli
