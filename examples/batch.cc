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
    std::vector<contexture::GenerationRequest> requests;
    for (int i = 2; i < argc; ++i) requests.push_back({argv[i], {.max_tokens = 60, .seed = 1}});
    // Four at a time, in the memory of one and a half; each says what it would say alone.
    contexture::LanguageModel model(
        {.model_path = argv[1], .context = 256, .sequences = 4, .page_tokens = 8, .pool_tokens = 384});
    const std::vector<contexture::Generation> made = model.generate_all(requests);
    for (size_t i = 0; i < made.size(); ++i) {
      std::cout << requests[i].prompt << made[i].text << "\n[" << made[i].prefilled_tokens << " prompt tokens run, "
                << made[i].prefix.reused_tokens << " reused, " << made[i].recomputed_tokens << " run again]\n\n";
    }
    return 0;
  } catch (const contexture::Error& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
  }
}
