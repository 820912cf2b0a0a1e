#include "base/error.h"
#include "cli/command.h"
#include "cli/numpy_writer.h"

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
    RunOptions options = cache.options();
    if (options.cache.context == 0) options.cache.context = tokens.size();
    options.chunk = options.logit_rows = std::min(chunk, tokens.size());
    const MemoryPlan plan = plan_memory(opened.file, options);
    check_prompt(plan, tokens);
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
    const SequenceId sequence = runtime.cache().create().value();
    const std::vector<SequenceId> sequences(chunk, sequence);
    const std::vector<uint8_t> wants(chunk, 1);
    std::vector<int64_t> positions(chunk);
    for (size_t at = 0; at < tokens.size(); at += chunk) {
      const size_t count = std::min(chunk, tokens.size() - at);
      if (!runtime.cache().append(sequence, count)) fail("the context is full");
      for (size_t i = 0; i < count; ++i) positions[i] = static_cast<int64_t>(at + i);
      const std::span<const float> logits =
          runtime.model().forward({.tokens = std::span(tokens).subspan(at, count),
                                   .positions = std::span(positions).first(count),
                                   .sequences = std::span(sequences).first(count),
                                   .wants_logits = std::span(wants).first(count),
                                   .cancelled = &interrupted()},
                                  runtime.cache(), runtime.workspace(), runtime.pool());
      if (interrupted()) fail("interrupted; {} is not written", printable(output, 400));
      writer.add(logits);
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
