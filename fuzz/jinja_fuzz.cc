#include <nlohmann/json.hpp>

#include "contexture/error.h"
#include "jinja/template.h"

/// Chat templates from strangers: any text parses and renders, or is refused in one line, within bounds; and what came
/// from messages is marked in order.
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
  static const nlohmann::ordered_json own = {
      {"bos_token", "<s>"}, {"add_generation_prompt", true}, {"markup", "<b>&amp;"}};
  const jinja::Bounds bounds{.work = size_t{1} << 22,
                             .work_a_byte = 16,
                             .memory = size_t{1} << 25,
                             .memory_a_byte = 16,
                             .output = size_t{1} << 20};
  try {
    const jinja::Template chat(std::string_view(reinterpret_cast<const char*>(data), size));
    const jinja::MarkedText text = chat.render(jinja::Variables{own, variables}, bounds, 1720256703);
    if (text.size() > bounds.output) std::abort();
    size_t end = 0;
    for (const ByteRange& range : text.content()) {
      const bool is_apart = range.begin > end || (range.begin == 0 && end == 0);
      if (!is_apart || range.end <= range.begin || range.end > text.size()) std::abort();
      end = range.end;
    }
  } catch (const Error& error) {
    for (const char c : std::string_view(error.what())) {
      if (static_cast<unsigned char>(c) < 0x20) std::abort();  // one line
    }
  }
  return 0;
}
