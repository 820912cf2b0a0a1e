#pragma once

#include <cstdint>
#include <string>

namespace contexture {

/// A chat template of the letter model's control tokens.
inline const std::string kLetterTemplate =
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}";

/// Writes a random model whose tokens are letters, a space and the control tokens of the template above. It says
/// letters alone, so that the text of an answer is cut into the tokens that it was; with `says_all` it says everything.
/// An empty chat template is left out.
void write_letter_model(const std::string& path, const std::string& chat_template, uint32_t seed = 1,
                        bool says_all = false);

}  // namespace contexture
