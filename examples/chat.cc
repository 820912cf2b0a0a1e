// Talks with a model, a line a turn:  example_chat MODEL [CHAT-FORMAT]
#include <contexture/contexture.h>

#include <cstdio>
#include <iostream>
#include <string>

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fprintf(stderr, "usage: %s MODEL [CHAT-FORMAT]\n", argv[0]);
    return 2;
  }
  try {
    contexture::Engine engine(contexture::Model::open(argv[1]), {.sequences = 1});
    contexture::Conversation conversation(
        engine, {.system = "Answer in one sentence.", .chat_format = argc > 2 ? argv[2] : ""});
    for (std::string line; std::getline(std::cin, line);) {
      // The history is in the cache: only what is new in this turn is read.
      const contexture::Generation answer =
          conversation.say(line, {.seed = 1}, {.max_tokens = 60}, [](const contexture::GeneratedToken& token) {
            std::cout << token.text << std::flush;
            return true;  // false would stop here
          });
      std::cout << "\n[" << answer.prefilled_tokens << " of " << answer.prompt_tokens << " tokens were new]\n";
    }
    return 0;
  } catch (const contexture::Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
