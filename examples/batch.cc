// Completes several prompts side by side in a small pool:  example_batch MODEL PROMPT...
#include <contexture/contexture.h>

#include <cstdio>
#include <iostream>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT...\n", argv[0]);
    return 2;
  }
  try {
    // Four at a time, in the memory of one and a half; each says what it would say alone.
    contexture::EngineOptions options{.context = 256, .sequences = 4};
    options.cache.layout_options = {{"page_tokens", "8"}, {"pool_tokens", "384"}};
    contexture::Engine engine(contexture::Model::open(argv[1]), options);
    std::vector<contexture::Stream> streams;
    for (int i = 2; i < argc; ++i) {
      streams.push_back(engine.submit(
          {.prompt = contexture::TextPrompt{argv[i]}, .sampling = {.seed = 1}, .limits = {.max_tokens = 60}}));
    }
    for (int i = 2; i < argc; ++i) {
      const contexture::Generation made = streams[static_cast<size_t>(i - 2)].wait();
      std::cout << argv[i] << made.text << "\n[" << made.prefilled_tokens << " prompt tokens run, "
                << made.prefix.reused_tokens << " reused, " << made.recomputed_tokens << " run again]\n\n";
    }
    return 0;
  } catch (const contexture::Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
