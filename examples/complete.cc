// Completes a prompt:  example_complete MODEL PROMPT
#include <contexture/contexture.h>

#include <cstdio>
#include <iostream>

int main(int argc, char** argv) {
  if (argc != 3) {
    std::fprintf(stderr, "usage: %s MODEL PROMPT\n", argv[0]);
    return 2;
  }
  try {
    contexture::Engine engine(contexture::Model::open(argv[1]), {.sequences = 1});
    std::cout << argv[2];
    const contexture::Generation made = contexture::generate(
        engine, {.prompt = contexture::TextPrompt{argv[2]}, .sampling = {.seed = 1}, .limits = {.max_tokens = 200}},
        [](const contexture::GeneratedToken& token) {
          std::cout << token.text << std::flush;
          return true;  // false would stop here
        });
    std::cout << "\n[" << made.token_ids.size() << " tokens, " << name(made.finish_reason) << "]\n";
    return 0;
  } catch (const contexture::Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
