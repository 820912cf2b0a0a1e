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
    contexture::LanguageModel model({.model_path = argv[1]});
    std::cout << argv[2];
    const contexture::Generation made =
        model.generate(argv[2], {.max_tokens = 200, .seed = 1}, [](const contexture::GeneratedToken& token) {
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
