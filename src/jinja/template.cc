#include "jinja/template.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/lexer.h"
#include "jinja/parser.h"

namespace contexture::jinja {

Template::Template(std::string_view source, std::string name) : name_(std::move(name)) {
  try {
    tree_ = std::make_unique<const Tree>(parse(source));
  } catch (const SyntaxFault& fault) {
    fail("{}, line {}: {}", name_, fault.line, printable(fault.message, 400));
  }
}

Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

std::string Template::render(const nlohmann::ordered_json& variables, const Limits& limits,
                             std::optional<std::time_t> now) const {
  Interpreter interpreter(*tree_, limits, now.value_or(std::time(nullptr)));
  try {
    return interpreter.run(variables);
  } catch (const Fault& fault) {
    fail("{}, line {}: {}", name_, interpreter.line(), printable(fault.message, 400));
  }
}

}  // namespace contexture::jinja
