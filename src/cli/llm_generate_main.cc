// contexture_llm_generate: the command line of the multi-context runner, on contexture/llm_decode_runner.h.

#include <CLI/CLI.hpp>

#include "base/log.h"
#include "contexture/llm_decode_runner.h"

int main(int argc, char** argv) {
  contexture::open_standard_streams();
  contexture::LLMDecodeConfig config;
  std::string prompt = "Once upon a time";
  CLI::App app("Runs a folder that `contexture compile` wrote.", "contexture_llm_generate");
  app.add_option("--ctx_dir", config.ctx_dir, "the folder")->required();
  app.add_option("--tokenizer", config.tokenizer_path, "the tokenizer (default: the folder's own)");
  app.add_option("--prompt", prompt, "what the text begins with")->capture_default_str();
  app.add_option("--max_gen", config.max_gen_tokens, "tokens to generate at most")
      ->check(CLI::Range(0, 1 << 30))
      ->capture_default_str();
  app.add_option("--log_level", config.log_level, "0 quiet, 1 info, 2 every shard's inputs and outputs")
      ->check(CLI::Range(0, 2));
  app.add_option("--backend_so", config.backend_so, "the graph backend: a name or a library")->capture_default_str();
  app.add_option("--kv_updater", config.kv_updater, "smart-mask or shift-pointer")->capture_default_str();
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }

  contexture::LLMDecodeRunner runner(config);
  std::string text;
  if (!runner.initialize() || !runner.generate(prompt, text)) {
    contexture::tell("error: {}\n", runner.get_error());
    return 1;
  }
  std::cout << text << std::endl;
  if (std::cout) return 0;
  contexture::tell("error: cannot write to stdout; is the disk full?\n");
  return 1;
}
