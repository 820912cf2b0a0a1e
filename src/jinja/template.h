#pragma once

#include <ctime>
#include <memory>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "jinja/interpreter.h"

/// Jinja2 as chat templates use it, with the settings that they are written for (the immutable sandbox, trim_blocks and
/// lstrip_blocks on, tojson as Python's json.dumps, loop controls, raise_exception, strftime_now). What is not carried
/// out is refused where a rendering reaches it, and not before: a template may hold it in a branch that is never taken.
///
/// Templates come with models, from strangers: parsing and rendering are bounded in depth, steps, time, memory and
/// output.
namespace contexture::jinja {

class Template {
 public:
  /// Throws Error: one line with `name` and the template's line.
  explicit Template(std::string_view source, std::string name = "chat template");
  Template(Template&&) noexcept;
  Template& operator=(Template&&) noexcept;
  ~Template();

  /// `variables`: objects whose entries the template sees as its variables; their integers must fit 64 bits with sign.
  /// `now`: what strftime_now tells; the present where nothing is given. Throws Error: one line with the template's
  /// line; where the template itself refuses (raise_exception), with its words.
  MarkedText render(const Variables& variables, const Bounds& bounds = {},
                    std::optional<std::time_t> now = std::nullopt) const;
  /// Of variables whose origin does not matter.
  std::string render(const nlohmann::ordered_json& variables, const Bounds& bounds = {},
                     std::optional<std::time_t> now = std::nullopt) const;

 private:
  std::string name_;
  size_t size_;
  std::unique_ptr<const Tree> tree_;
};

}  // namespace contexture::jinja
