// Runs a folder that `contexture compile` wrote, shard by shard: example_static_graph FOLDER BACKEND [PROMPT]

#include "contexture/llm_decode_runner.h"

using namespace llm_test;

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: example_static_graph FOLDER BACKEND [PROMPT]\n";
    return 2;
  }
  LLMDecodeConfig config;
  config.ctx_dir = argv[1];
  config.tokenizer_path = config.ctx_dir + "/tokenizer.gguf";
  config.backend_so = argv[2];
  config.max_gen_tokens = 40;
  config.log_level = 1;
  config.use_multi_context = true;
  config.num_shards = 2;

  LLMDecodeRunner runner(config);
  if (!runner.initialize()) {
    std::cerr << "error: " << runner.get_error() << "\n";
    return 1;
  }
  std::string output;
  if (!runner.generate(argc > 3 ? argv[3] : "Once upon a time", output)) {
    std::cerr << "error: " << runner.get_error() << "\n";
    return 1;
  }
  std::cout << output << "\n";
  return 0;
}
