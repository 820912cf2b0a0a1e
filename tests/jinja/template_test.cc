#include "jinja/template.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <ctime>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "support/sanitized.h"

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
      "{% set ns = namespace() %}{% set ns.g = [1] %}{% for i in range(90000) %}{% set ns.g = ns.g | map('abs') %}{% "
      "endfor %}"
      "{{ ns.g | list }}",
      "{% set ns = namespace() %}{% set ns.g = [1] %}{% for i in range(90000) %}{% set ns.g = [ns.g] %}{% endfor %}",
      "{% set ns = namespace() %}{% set ns.g = [1] %}{% for i in range(90000) %}{% set ns.g = [ns.g.index] %}{% endfor "
      "%}",
      "{% set ns = namespace() %}{% set ns.n = ns %}{{ ns }}",
      "{% set ns = namespace() %}{% set ns.n = [[[[ns]]]] %}{{ ns | string }}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}",
      "{% for x in [1] recursive %}{{ loop([1]) }}{{ loop([1]) }}{% endfor %}",
      "{% macro m() %}{{ m(*varargs) }}{% endmacro %}{{ m(*range(1000)) }}",
      "{{ dict(*range(100000)) }}",
      "{% macro m() %}{{ varargs }}{% endmacro %}{{ m(*range(1001)) }}",
      "{{ '{:1000000000}'.format(1) }}",
      "{{ '{:.1000000000f}'.format(1.5) }}",
      "{{ '%1000000000d' % 1 }}",
      "{{ '%*d' % (1000000000, 1) }}",
      "{{ ('{:1000000}' * 1000).format(*range(1000)) }}",
      "{{ 'x'.center(1000000000000) }}",
      "{{ 'x'.zfill(1000000000000) }}",
      "{{ ('\t' * 1000000).expandtabs(1000) }}",
      "{{ [1] | batch(1000000000000, 'x') | list }}",
      "{{ [1] | slice(1000000000000) | list }}",
      "{{ ('é' * 1000000) | tojson(ensure_ascii=true) | tojson | tojson | tojson | tojson | tojson | tojson }}",
      "{% set ns = namespace(s='%s%s') %}{% for i in range(60) %}{% set ns.s = ns.s % (ns.s, ns.s) %}{% endfor %}{{ "
      "ns.s }}",
      "{{ range(100000) | map('string') | unique | list | length }}",
      "{{ ('x ' * 1000000).rsplit(none, 1000000) | length }}",
      std::string(2000000, 'x'),
  };
  for (const std::string& source : all_templates) {
    const auto start = std::chrono::steady_clock::now();
    const std::string error = error_of(source, Json::object(), {.work = sized(Bounds().work)});
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

Json conversation(size_t turns, size_t size) {
  Json messages = Json::array();
  for (size_t i = 0; i < turns; ++i) {
    messages.push_back({{"role", i % 2 ? "assistant" : "user"}, {"content", std::string(size, 'x')}});
  }
  return {{"messages", messages}};
}

// What templates of the field do, some of it once for every message, or for every character.
TEST(Template, WorkGrowsWithTheConversation) {
  const Json many = conversation(sized(1000), 300), few = conversation(3, sized(150000));
  for (const char* source :
       {"{% for m in messages %}{{ m.content[loop.index0:] | trim | replace('x', 'yz') }}{% endfor %}",
        "{% set ns = namespace(s='') %}{% for m in messages %}{% set ns.s = ns.s ~ m.content %}{% endfor %}{{ ns.s }}",
        "{% set ns = namespace(l=[]) %}{% for m in messages %}{% set ns.l = ns.l + [m] %}{% endfor %}{{ ns.l | length "
        "}}",
        "{% for m in messages %}{% for n in messages %}{% if n.role == m.role %}{{ '.' }}{% endif %}{% endfor %}{% "
        "endfor %}",
        "{% for m in messages %}{{ (messages | selectattr('role', 'equalto', 'user') | list)[-1] == m }}{% endfor %}",
        "{% for m in messages %}{% for c in m.content %}{% if c != ' ' %}{{ c }}{% endif %}{% endfor %}{% endfor %}",
        "{% for m in messages %}{{ m | tojson }}{{ m.content.split('x') | length }}{{ m.content | list | length }}{% "
        "endfor %}"}) {
    EXPECT_EQ(error_of(source, many), "none");
    EXPECT_EQ(error_of(source, few), "none");
  }
}

TEST(Template, WhatIsNoLongerNeededCostsNoMemory) {
  const Bounds bounds{.memory = size_t{1} << 20, .memory_a_byte = 0};
  const char* growing =
      "{% set ns = namespace(s='', l=[]) %}{% for i in range(2000) %}{% set t = ns.s ~ 'abcdefghij' %}"
      "{% set ns.s = t %}{% set ns.l = ns.l + [i] %}{% endfor %}{{ ns.s | length }} {{ ns.l | length }}";
  EXPECT_EQ(Template(growing).render(Json::object(), bounds), "20000 2000") << "40 MB in all";
  EXPECT_THAT(error_of("{{ ('x' * 900000) ~ ('y' * 900000) }}", Json::object(), bounds), HasSubstr("more memory"));
  EXPECT_THAT(error_of("{{ ['x'] * 100000 }}", Json::object(), bounds), HasSubstr("more memory"));
}

TEST(Template, TimeIsBoundedToo) {
  const char* busy = "{% for i in range(100000) %}{{ i }}{% endfor %}";
  EXPECT_EQ(error_of(busy), "none");
  EXPECT_THAT(error_of(busy, Json::object(), {.seconds = 0}), HasSubstr("more than 0 seconds"));
  EXPECT_THAT(error_of(busy, Json::object(), {.work = 1000, .work_a_byte = 0}), HasSubstr("more work"));
  EXPECT_EQ(error_of(busy, Json::object(), {.work = 1000, .work_a_byte = 1 << 20}), "none");
}

TEST(Template, WhatIsNotKnownIsRefusedWhereItIsReached) {
  for (const char* unknown : {"{{ 'x' | nope }}", "{{ 'x' is nope }}", "{% include 'x' %}", "{% import 'x' as y %}",
                              "{% from 'x' import y %}", "{% extends 'x' %}", "{% block b %}{{ x }}{% endblock b %}",
                              "{% autoescape true %}x{% endautoescape %}", "{{ 'x' | random }}", "{{ lipsum() }}",
                              "{{ 'x'.encode() }}", "{{ 5 .real }}", "{{ [1] | map('upper') }}"}) {
    EXPECT_NE(error_of(unknown), "none") << unknown;
    const std::string never = std::string("{% if no %}") + unknown + "{% endif %}ok";
    EXPECT_EQ(error_of(never), "none") << unknown;
  }
}

TEST(Template, ArgumentsThatAreNotKnownAreRefusedByName) {
  EXPECT_THAT(error_of("{{ 'a' | tojson(indents=1) }}"), HasSubstr("tojson takes no argument 'indents'"));
  EXPECT_THAT(error_of("{{ 'a'.split(by='a') }}"), HasSubstr("split takes no argument 'by'"));
  EXPECT_THAT(error_of("{{ 'a' | upper(1) }}"), HasSubstr("upper takes 0 arguments at most and not 1"));
  EXPECT_THAT(error_of("{{ 'a' | replace('a') }}"), HasSubstr("replace needs the argument 'new'"));
  EXPECT_THAT(error_of("{{ 1 is divisibleby(num=1, by=2) }}"), HasSubstr("'by'"));
  EXPECT_THAT(error_of("{{ strftime_now('%Y', zone=1) }}"), HasSubstr("'zone'"));
  EXPECT_THAT(error_of("{{ [1] | sort(true, reverse=true) }}"), HasSubstr("two values for the argument 'reverse'"));
  EXPECT_THAT(error_of("{% set l = [1] %}{% set _ = l.append(2) %}"), HasSubstr("append() would change a value"));
}

TEST(Template, MarksWhatCameFromOutside) {
  const Json own = {{"mine", "M"}}, content = {{"yours", "äY "}, {"role", "user"}};
  const std::string_view words[] = {"user"};
  const auto marked = [&](const char* source) {
    const MarkedText text = Template(source).render(Variables{own, content, words});
    std::string shown;
    for (size_t at = 0; at < text.size(); ++at) {
      if (text.is_content(at) && (at == 0 || !text.is_content(at - 1))) shown += '[';
      shown += text.bytes()[at];
      if (text.is_content(at) && (at + 1 == text.size() || !text.is_content(at + 1))) shown += ']';
    }
    return shown;
  };
  EXPECT_EQ(marked("a{{ mine }}{{ yours }}b{{ role }}"), "aM[äY ]buser");
  EXPECT_EQ(marked("{{ (mine ~ yours ~ mine)[1:3] | upper }}"), "[ÄY]");
  EXPECT_EQ(marked("{{ yours.strip() + mine }}{{ 'x-x' | replace('-', yours) }}"), "[äY]Mx[äY ]x");
  EXPECT_EQ(marked("{{ '%s|%5s|%r' % (yours, mine, yours) }}"), "[äY ]|    M|'[äY ]'");
  EXPECT_EQ(marked("{{ [mine, yours] | tojson }}{{ {yours: 1} }}"), "[\"M\", \"[äY ]\"]{'[äY ]': 1}");
  EXPECT_EQ(marked("{{ yours | tojson(ensure_ascii=true) }}"), "\"[\\u00e4Y ]\"");
  EXPECT_EQ(marked("{{ ('<' ~ yours) | e }}"), "&lt;[äY ]");
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
