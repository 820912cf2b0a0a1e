#include "jinja/template.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace contexture::jinja {
namespace {

using Json = nlohmann::ordered_json;
using testing::HasSubstr;

/// The moment that make_cases.py takes for the present.
std::time_t the_present() {
  std::tm parts = {};
  parts.tm_year = 2024 - 1900, parts.tm_mon = 6, parts.tm_mday = 6;
  parts.tm_hour = 9, parts.tm_min = 5, parts.tm_sec = 3;
  parts.tm_isdst = -1;
  return std::mktime(&parts);
}

std::string error_of(std::string_view source, const Json& variables = Json::object(), const Bounds& bounds = {}) {
  try {
    Template(source).render(variables, bounds);
  } catch (const Error& error) {
    EXPECT_EQ(std::string_view(error.what()).find('\n'), std::string_view::npos) << error.what();
    return error.what();
  }
  return "none";
}

TEST(Template, RendersAsJinja2) {
  std::ifstream file("tests/jinja/cases.json");
  const Json all = Json::parse(file);
  ASSERT_GT(all["cases"].size(), 150u);
  for (const Json& c : all["cases"]) {
    const std::string source = c["template"];
    std::string made;
    bool failed = false;
    try {
      made = Template(source).render(all["variables"], {}, the_present());
    } catch (const Error& error) {
      made = error.what();
      failed = true;
    }
    if (c.contains("error")) {
      EXPECT_TRUE(failed) << source << "\ngave: " << made;
    } else {
      EXPECT_EQ(made, c["expected"].get<std::string>()) << source;
    }
  }
}

TEST(Template, ErrorsSayTheLine) {
  EXPECT_THAT(error_of("a\n\n{{ x.y }}"), HasSubstr("line 3: 'x' is undefined"));
  EXPECT_THAT(error_of("a\n{% if x %}\n"), HasSubstr("chat template, line 2"));
  EXPECT_THAT(error_of("{{ 'a\nb' }}\n{{ raise_exception('Only\nuser') }}"), HasSubstr("line 3: Only?user"));
  EXPECT_THAT(error_of("{% include 'x' %}"), HasSubstr("'include'"));
  EXPECT_THAT(error_of("{{ 9999999999999999999 }}"), HasSubstr("too large"));
  EXPECT_THAT(error_of("{{ 9223372036854775807 + 1 }}"), HasSubstr("64 bits"));
  EXPECT_THAT(error_of("{{ -9223372036854775807 // -1 - -2 }}"), HasSubstr("64 bits"));
}

TEST(Template, GivesWhatIsRightForInputsThatFailed) {
  std::ifstream file("../shared/data/trials/jinja.json");
  if (!file) GTEST_SKIP() << "no ../shared/data/trials/jinja.json here";
  for (const Json& trial : Json::parse(file)) {
    const std::string source = trial["template"], name = trial["name"];
    if (trial["right"].contains("refuses")) {
      EXPECT_NE(error_of(source, trial["variables"]), "none") << name;
    } else {
      EXPECT_EQ(error_of(source, trial["variables"]), "none") << name;
      EXPECT_EQ(Template(source).render(trial["variables"]), trial["right"]["text"].get<std::string>()) << name;
    }
  }
}

// Each of these would hang, eat memory or overflow the stack in an interpreter without bounds.
TEST(Template, HostileTemplatesEndSoon) {
  const auto repeated = [](const std::string& text, size_t times) {
    std::string out;
    for (size_t i = 0; i < times; ++i) out += text;
    return out;
  };
  std::string named_arguments, parameters = "a";
  for (int i = 0; i < 60000; ++i) named_arguments += fmt::format(", a{}=1", i);
  for (int i = 0; i < 40000; ++i) parameters += fmt::format(", a{}", i);
  const std::string all_templates[] = {
      "{{ range(400000) | map('abs'" + named_arguments + ") }}",
      "{{ range(400000) | select('divisibleby'" + named_arguments + ") }}",
      "{% macro m(" + parameters + ") %}{% endmacro %}{% for i in range(400000) %}{{ m(a39999=1) }}{% endfor %}",
      "{% macro m() %}{{ caller() }}{% endmacro %}{% call(" + parameters + ") m() %}{% endcall %}",
      "{{ " + repeated("(", 100000) + "1",
      "{{ " + repeated("[", 100000),
      "{{ " + repeated("not ", 100000) + "x }}",
      "{{ " + repeated("-", 100000) + "1 }}",
      "{{ 1" + repeated("+1", 100000) + " }}",
      "{{ 1" + repeated(".a", 100000) + " }}",
      "{{ 1" + repeated("|abs", 100000) + " }}",
      "{{ x" + repeated(" if x else x", 50000) + " }}",
      repeated("{% if x %}", 50000),
      repeated("{% for x in y %}", 50000),
      "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
      "{% macro m() %}{{ m() }}{{ m() }}{% endmacro %}{{ m() }}",
      "{% set ns = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set ns.s = ns.s ~ ns.s %}{% endfor %}{{ ns.s "
      "}}",
      "{% for i in range(1000000000000) %}{% endfor %}",
      "{{ range(1000000000000) }}",
      "{{ 'x' * 1000000000000000000 }}",
      "{{ [[1] * 1000] * 1000000000 }}",
      "{{ ('x' * 1000000).replace('', 'y' * 1000000) }}",
      "{{ ('x' * 1000000) | replace('x', 'y' * 1000000) }}",
      "{% set l = [] %}{% set _ = l.append(l) %}{{ l }}",
      "{% set l = [] %}{% set _ = l.append(l) %}{{ l == l }}{{ l == [l] }}{{ l | tojson }}",
      "{% set ns = namespace() %}{% set ns.l = [1, 1] %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor "
      "%}{{ ns.l }}",
      "{% set ns = namespace() %}{% set ns.l = [1, 1] %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor "
      "%}"
      "{% set l = ns.l %}{% set ns.l = [1, 1] %}{% for i in range(90) %}{% set ns.l = [ns.l, ns.l] %}{% endfor %}{{ l "
      "== ns.l }}",
      "{% for i in range(10000) %}{% for j in range(10000) %}{% for k in range(10000) %}x{% endfor %}{% endfor %}{% "
      "endfor %}",
      "{{ [1] | tojson(indent=1000000000) }}",
      "{{ 'a\n' | indent(1000000000) }}",
      "{{ (('a' * 1000000) ~ 'b') in ('a' * 10000000) }}",
      "{{ ('ab' * 1000000).split('') }}",
      "{{ 7 ** 7 ** 7 ** 7 }}",
      "{{ '%s' * 100000 | format }}",
      "{{ strftime_now('%1000000000d' * 1000000) }}{{ x.y }}",
      std::string(2000000, 'x'),
  };
  for (const std::string& source : all_templates) {
    const auto start = std::chrono::steady_clock::now();
    const std::string error = error_of(source);
    EXPECT_NE(error, "none") << source.substr(0, 200);
    EXPECT_LT(error.size(), 600u) << source.substr(0, 200);
    const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - start;
    EXPECT_LT(seconds.count(), 20) << source.substr(0, 200) << error;
  }
}

TEST(Template, ArgumentsAreCounted) {
  std::string names = "a0", numbers = "0";
  for (int i = 1; i < 64; ++i) {
    names += fmt::format(", a{}", i);
    numbers += fmt::format(", {}", i);
  }
  const std::string macro = "{% macro m(" + names + ") %}{{ a63 }}{% endmacro %}";
  EXPECT_EQ(Template(macro + "{{ m(" + numbers + ",) }}").render(Json::object()), "63");
  EXPECT_THAT(error_of(macro + "{{ m(" + numbers + ", 64) }}"), HasSubstr("more than 64 arguments"));
  EXPECT_THAT(error_of("{% macro m(" + names + ", a64) %}{% endmacro %}"), HasSubstr("more than 64 arguments"));
}

TEST(Template, OutputIsBounded) {
  EXPECT_THAT(error_of("{% for i in range(9) %}0123456789{% endfor %}", Json::object(), {.output = 89}),
              HasSubstr("89"));
  EXPECT_EQ(error_of("{% for i in range(9) %}0123456789{% endfor %}", Json::object(), {.output = 90}), "none");
}

TEST(Template, LongConversationsAreNoTrouble) {
  Json messages = Json::array();
  for (int i = 0; i < 1000; ++i) {
    messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(1000, 'x')}});
  }
  const Template chat(
      "{% for m in messages %}{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('order') }}{% "
      "endif "
      "%}{{ '<|' + m['role'] + '|>\n' + m['content'] | trim + '<|end|>\n' }}{% endfor %}");
  EXPECT_GT(chat.render({{"messages", messages}}).size(), 1000000u);
}

}  // namespace
}  // namespace contexture::jinja
