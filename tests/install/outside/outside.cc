// A program that knows of Contexture what is installed:  outside MODEL PROMPT
#include <contexture/contexture.h>

#include <iostream>

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  contexture::set_log([](contexture::LogLevel, std::string_view message) { std::cerr << "log: " << message << '\n'; });
  try {
    (void)contexture::Model::open("/no/such/model");
    return 3;
  } catch (const contexture::Error& error) {  // what the library throws is caught by its name
    std::cerr << error.what() << '\n';
  }
  contexture::Engine engine(contexture::Model::open(argv[1]));
  std::cout << argv[2];
  contexture::Stream stream = engine.submit({.prompt = contexture::TextPrompt{argv[2]}, .limits = {.max_tokens = 20}});
  for (const contexture::Event& event : stream) {
    if (const auto* token = std::get_if<contexture::TokenEvent>(&event)) std::cout << token->text << std::flush;
    if (std::holds_alternative<contexture::FailedEvent>(event)) return 4;
  }
  std::cout << std::endl;
  return 0;
}
