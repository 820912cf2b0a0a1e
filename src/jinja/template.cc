#include "jinja/template.h"

#include <nlohmann/json.hpp>

#include "base/error.h"
#include "jinja/lexer.h"
#include "jinja/parser.h"

namespace contexture::jinja {
namespace {

/// The bytes of all texts, and some for what else there is.
size_t size_of(const nlohmann::ordered_json& json) {
  size_t size = 16;
  if (json.is_string()) return size + json.get_ref<const std::string&>().size();
  if (!json.is_structured()) return size;
  for (const auto& item : json.items()) size += (json.is_object() ? item.key().size() : 0) + size_of(item.value());
  return size;
}

}  // namespace

Template::Template(std::string_view source, std::string name) : name_(std::move(name)), size_(source.size()) {
  try {
    tree_ = std::make_unique<const Tree>(parse(source));
  } catch (const SyntaxFault& fault) {
    fail("{}, line {}: {}", name_, fault.line, printable(fault.message, 400));
  }
}

Template::Template(Template&&) noexcept = default;
Template& Template::operator=(Template&&) noexcept = default;
Template::~Template() = default;

MarkedText Template::render(const Variables& variables, const Bounds& bounds, std::optional<std::time_t> now) const {
  const size_t input = size_ + size_of(variables.own) + size_of(variables.content);
  Interpreter interpreter(*tree_, bounds, input, now.value_or(std::time(nullptr)));
  try {
    return interpreter.run(variables);
  } catch (const Fault& fault) {
    fail("{}, line {}: {}", name_, interpreter.line(), printable(fault.message, 400));
  }
}

std::string Template::render(const nlohmann::ordered_json& variables, const Bounds& bounds,
                             std::optional<std::time_t> now) const {
  return render(Variables{.own = variables, .content = nlohmann::ordered_json::object()}, bounds, now).bytes();
}

}  // namespace contexture::jinja
