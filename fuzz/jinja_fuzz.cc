#include <nlohmann/json.hpp>

#include "contexture/error.h"
#include "jinja/template.h"

/// Chat templates from strangers: any text parses and renders, or is refused in one line, within bounds.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace contexture;
  static const nlohmann::ordered_json variables = {
      {"messages",
       {{{"role", "system"}, {"content", " Be brief. "}},
        {{"role", "user"}, {"content", "Hi \u00E9"}},
        {{"role", "assistant"}, {"content", "<think>\nso\n</think>\n\nHello"}},
        {{"role", "user"}, {"content", "Bye"}}}},
      {"tools", {{{"type", "function"}, {"function", {{"name", "weather"}, {"parameters", {{"x", 1.5}}}}}}}},
      {"bos_token", "<s>"},
      {"eos_token", "</s>"},
      {"add_generation_prompt", true},
      {"nothing", nullptr},
      {"numbers", {3, 1, 2, -9223372036854775807}},
      {"words", {"pear", "Apple", "\xFF"}},
  };
  const jinja::Limits limits{.work = size_t{1} << 22, .output = size_t{1} << 20};
  try {
    const jinja::Template chat(std::string_view(reinterpret_cast<const char*>(data), size));
    if (chat.render(variables, limits, 1720256703).size() > limits.output) std::abort();
  } catch (const Error& error) {
    for (const char c : std::string_view(error.what())) {
      if (static_cast<unsigned char>(c) < 0x20) std::abort();  // one line
    }
  }
  return 0;
}
