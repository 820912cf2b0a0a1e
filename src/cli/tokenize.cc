#include <fmt/ranges.h>

#include <iostream>

#include "base/error.h"
#include "cli/command.h"

namespace contexture::cli {
namespace {

struct Tokenize {
  ModelFlags model;
  std::string text = "-";
  bool no_bos = false, no_special = false;

  void run() const {
    const OpenedModel opened = model.open({.weights = false});
    const Tokenizer& tokenizer = opened.need_tokenizer();
    const std::vector<TokenId> ids =
        tokenizer.encode(text == "-" ? read_text("-") : text, {.add_begin = !no_bos, .parse_special = !no_special});
    if (!model.json) {
      fmt::print("{}\n", fmt::join(ids, " "));
      return;
    }
    std::vector<std::string> pieces;
    for (const TokenId id : ids) pieces.push_back(valid_utf8(tokenizer.piece(id)));
    print_json({{"ids", ids}, {"pieces", pieces}});
  }
};

struct Detokenize {
  ModelFlags model;
  std::vector<TokenId> ids;
  bool special = false;

  void run() const {
    const OpenedModel opened = model.open({.weights = false});
    const std::string text = opened.need_tokenizer().decode(ids, special);
    if (model.json) {
      print_json({{"text", valid_utf8(text)}});
    } else {
      std::cout << text << '\n';
    }
  }
};

}  // namespace

void add_tokenize(CLI::App& app) {
  CLI::App* command = app.add_subcommand("tokenize", "print the token ids of a text");
  auto self = std::make_shared<Tokenize>();
  self->model.add_to(*command);
  command->add_option("text", self->text, "the text; - (the default) reads stdin, byte for byte");
  command->add_flag("--no-bos", self->no_bos, "without the begin (and end) token that the model asks for");
  command->add_flag("--no-special", self->no_special, "special tokens in the text are text like any other");
  command->callback([self] { self->run(); });
}

void add_detokenize(CLI::App& app) {
  CLI::App* command = app.add_subcommand("detokenize", "print the text of token ids");
  auto self = std::make_shared<Detokenize>();
  self->model.add_to(*command);
  command->add_option("ids", self->ids, "token ids")->required();
  command->add_flag("--special", self->special, "show control tokens by name; without it they add nothing");
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
