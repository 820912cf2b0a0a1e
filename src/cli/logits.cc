#include "base/error.h"
#include "cli/command.h"
#include "cli/numpy_writer.h"
#include "engine/text.h"
#include "verify/text_reader.h"

namespace contexture::cli {
namespace {

struct Logits {
  ModelFlags model;
  CacheFlags cache;
  std::vector<TokenId> tokens;
  std::string prompt, output;
  size_t chunk = 64;

  void run() {
    catch_interrupts();
    const OpenedModel opened = model.open();
    if (tokens.empty()) tokens = opened.need_tokenizer().encode(prompt);
    RunOptions options = cache.options(opened.file.metadata);
    if (options.cache.context == 0) options.cache.context = tokens.size();
    options.chunk = options.logit_rows = std::min(chunk, tokens.size());
    const MemoryPlan plan = plan_memory(opened.file, options);
    check_prompt({.context = plan.cache.context, .vocabulary = plan.config.vocabulary}, tokens);
    Runtime runtime(opened.file, plan);
    const size_t vocabulary = plan.config.vocabulary;
    const std::string hash = write(runtime, vocabulary);
    if (model.json) {
      print_json({{"tokens", tokens.size()}, {"vocabulary", vocabulary}, {"sha256", hash}});
    } else {
      fmt::print("{}: {} tokens × {} logits, sha256 {}\n", output, tokens.size(), vocabulary, hash);
    }
  }

  std::string write(Runtime& runtime, size_t vocabulary) const {
    NumpyWriter writer(output, tokens.size(), vocabulary);
    TextReader reader(runtime, &interrupted());
    for (size_t at = 0; at < tokens.size(); at += chunk) {
      const std::span<const TokenId> some = std::span(tokens).subspan(at, std::min(chunk, tokens.size() - at));
      const std::optional<std::span<const float>> logits = reader.feed(some);
      if (!logits) fail("interrupted; {} is not written", printable(output, 400));
      writer.add(*logits);
    }
    return writer.finish();
  }
};

}  // namespace

void add_logits(CLI::App& app) {
  CLI::App* command = app.add_subcommand("logits", "write the logits after every token as a NumPy file");
  auto self = std::make_shared<Logits>();
  self->model.add_to(*command);
  self->cache.add_to(*command);
  CLI::Option_group* input = command->add_option_group("input", "one of");
  input->add_option("--tokens", self->tokens, "token ids, separated by commas; no begin token is added")
      ->delimiter(',')
      ->option_text("ID,ID,...");
  input->add_option("-p,--prompt", self->prompt, "a text")->option_text("TEXT");
  input->require_option(1);
  command->add_option("-o,--output", self->output, "the file to write, float32 (tokens × vocabulary)")
      ->required()
      ->option_text("FILE.npy");
  command->add_option("--chunk", self->chunk, "tokens fed at a time; the logits are the same bits for any")
      ->check(whole_number(1, 65536))
      ->capture_default_str();
  command->callback([self] { self->run(); });
}

}  // namespace contexture::cli
