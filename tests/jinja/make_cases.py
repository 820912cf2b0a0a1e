#!/usr/bin/env python3
"""Writes cases.json beside this file: templates, and what Jinja2 itself makes of them with the settings that chat
templates are written for. Run it again after a change:  python3 tests/jinja/make_cases.py   (needs Jinja2 3.1)
"""

import datetime
import json
import os

import jinja2
import jinja2.ext
import jinja2.sandbox

NOW = datetime.datetime(2024, 7, 6, 9, 5, 3)

VARIABLES = {
    "messages": [
        {"role": "system", "content": " Be brief. "},
        {"role": "user", "content": "Hi \u00e9\U0001f600"},
        {"role": "assistant", "content": "Hello"},
        {"role": "user", "content": "Bye\n"},
    ],
    "name": "World",
    "empty": "",
    "yes": True,
    "no": False,
    "nothing": None,
    "n": 7,
    "big": 9007199254740993,
    "f": 2.5,
    "words": ["pear", "Apple", "fig", "apple", "Fig"],
    "numbers": [3, 1, 2, 3],
    "d": {"b": 1, "a": [1, 2.0, None, True, "x'y"], "items": "shadow", "nested": {"k": "\u00e9<&>\"\\"}},
    "people": [
        {"name": "Ann", "age": 31, "home": {"town": "Ulm"}},
        {"name": "bob", "age": 25, "home": {"town": "Bonn"}},
        {"name": "Cid", "age": 31},
    ],
    "text": "one two  three\nfour\n\nfive",
    "wide": "\u3000\u00a0 x y\u2003\n",
    "tools": [
        {
            "type": "function",
            "function": {
                "name": "weather",
                "description": "It's \"fine\"",
                "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
            },
        }
    ],
}

# Outputs are compared byte for byte.
CASES = [
    # white space
    "a\n", "a\n\n", "\n a", "a{{ name }}\n b", "{% if yes %}\n x\n{% endif %}\ny", "  {% if yes %}\n  x\n  {% endif %}\ny",
    "a  {% if yes %}b{% endif %}  c", "a\n\n  {%- if yes -%}  \n b \n {%- endif -%} \n c", "a {{- name -}} b",
    "a\n  {%+ if yes %}\nb\n  {%+ endif %}\nc", "a\n{% if yes +%}\nb{% endif %}", "x {# note #}\ny", "x\n  {# note #}\n  y",
    "x {#- note -#} y", "  {# a #}  {# b #}\nz", "{{ name }}\n", "{{ name }}\n\n{{ name }}", "a\r\nb\rc",
    "{% raw %}{{ x }}{% endraw %}!", "a\n {% raw -%}  \n {{ x }} {% y %}\n  {%- endraw %}\nb", "{% raw %}\n{{a}}\n{% endraw %}\nb",
    "{% for i in [1,2] %}\n  {{ i }}\n{% endfor %}\n", "{%- for i in [1,2] -%}\n  {{ i }}\n{%- endfor -%}\n",
    "  {{ name }}", "\t{% set x = 1 %}\t\n{{ x }}", "{% set x = 1 %}  {% set y = 2 %}\n{{ x }}{{ y }}", "{{ '}}' }}{{ \"%}\" }}",
    "{{ {'a': {'b': 1}} }}", "{% if yes %}{%if no%}{%else%}-{%endif%}{%endif%}", "{", "{ {", "a{", "}} %} #}",
    # literals and their texts
    "{{ 1 }} {{ 1.0 }} {{ 1.5 }} {{ 1e3 }} {{ 1_000 }} {{ 1e20 }} {{ 0.1 }} {{ 1e-5 }} {{ 123456789.125 }} {{ 1e16 }} {{ 1e15 }}",
    "{{ true }} {{ True }} {{ false }} {{ none }} {{ None }}", "{{ 'a\\n\\t\\\\\\'\\\"\\x41\\u00e9\\q\\101' }}", "{{ 'a' 'b' \"c\" }}",
    "{{ [1, 'a', \"it's\", 'q\"', 'b\\n', 2.0, true, none, [], {}, ()] }}", "{{ (1,) }} {{ (1, 2) }} {{ () }} {{ 1, 2 }}",
    "{{ {'a': 1, \"b\": [2], 3: 'c', none: true} }}", "{{ 'a\u00e9\u00ad\U0001f600' }} {{ ['\u00e9\u200b\\u00ad\\x7f\U0001f600'] }}", "{{ d }}", "{{ big }} {{ -big }} {{ f }}",
    "{{ nothing }} {{ missing }}|{{ yes }}", "{{ [missing] }}", "{{ -n }} {{ +n }} {{ - 3 }} {{ 2 - -1 }}",
    # arithmetic
    "{{ 7 / 2 }} {{ 8 / 2 }} {{ 7 // 2 }} {{ -7 // 2 }} {{ 7 // -2 }} {{ -7 % 3 }} {{ 7 % -3 }} {{ 7.5 // 2 }} {{ -7.5 % 2 }} {{ 2 ** 10 }} {{ 2 ** -1 }} {{ 2 ** 0.5 }}",
    "{{ 1 + 2 * 3 - 4 }} {{ (1 + 2) * 3 }} {{ 2 * 3 % 4 }} {{ 2 ** 3 ** 2 }} {{ -2 ** 2 }} {{ 1 + 1.0 }} {{ true + 1 }} {{ 10 - 2 - 3 }}",
    "{{ 'a' + 'b' }} {{ 'ab' * 3 }} {{ 3 * 'x' }} {{ [1] + [2] }} {{ [0] * 2 }} {{ (1,) + (2,) }} {{ 'ab' * 0 }}|{{ 'ab' * -1 }}",
    "{{ 1 ~ 2 ~ 'c' ~ none ~ true ~ missing }} {{ 1 + 2 ~ 3 }} {{ 'a' ~ 1 + 2 }}",
    # comparisons and logic
    "{{ 1 < 2 < 3 }} {{ 1 < 2 > 3 }} {{ 1 == 1.0 }} {{ true == 1 }} {{ '1' == 1 }} {{ none == false }} {{ [1, 2] == [1, 2] }} {{ (1,) == [1] }} {{ {'a': 1, 'b': 2} == {'b': 2, 'a': 1} }}",
    "{{ 'a' < 'b' }} {{ 'Z' < 'a' }} {{ [1, 2] < [1, 3] }} {{ 2 >= 2 }} {{ 2 <= 1 }} {{ 1 != 2 }} {{ 'ab' > 'aa' }}",
    "{{ 'a' in 'cat' }} {{ 2 in numbers }} {{ 9 not in numbers }} {{ 'a' in d }} {{ 'z' in d }} {{ 'x' in missing }} {{ not 'a' in 'cat' }} {{ '' in '' }}",
    "{{ 1 and 2 }} {{ 0 and 2 }} {{ 0 or 'x' }} {{ '' or none }} {{ not 1 }} {{ not not 1 }} {{ not missing }} {{ 1 or missing.x }}",
    "{{ 'a' if yes else 'b' }} {{ 'a' if no else 'b' }} {{ 'a' if no }}| {{ 'a' if no else 'b' if no else 'c' }}", "{{ missing == missing2 }} {{ missing == none }} {{ missing != 1 }}",
    "{{ (yes and not no) or missing.x }} {{ yes and no or yes }} {{ 1 == 1 and 2 == 2 }} {{ not 1 == 2 }} {{ 1 if 2 > 1 and 'a' in 'abc' else 3 }}",
    # access
    "{{ messages[0].role }} {{ messages[0]['content'] }} {{ messages[-1].role }} {{ messages[9] }}| {{ messages.0.role }}", "{{ d.b }} {{ d['b'] }} {{ d.zzz }}| {{ d['items'] }} {{ d.nested.k }} {{ d.zzz is defined }}",
    "{{ numbers[1:] }} {{ numbers[:2] }} {{ numbers[::-1] }} {{ numbers[-2:] }} {{ numbers[::2] }} {{ numbers[5:] }} {{ numbers[1:-1] }} {{ numbers[3:0:-2] }} {{ numbers[:] }} {{ (1,2,3)[1:] }} {{ numbers[none:2] }}",
    "{{ 'h\u00e9llo'[1] }} {{ 'h\u00e9llo'[-1] }} {{ 'h\u00e9llo'[1:3] }} {{ 'h\u00e9llo'[::-1] }} {{ 'abc'[10] }}| {{ 'abc'[:-1] }} {{ 'abc'[5:] }}|", "{{ nothing.x }}| {{ nothing.x is defined }} {{ n.real2 is defined }} {{ 'x'.y is defined }} {{ messages['x'] is defined }}",
    "{{ numbers[true] }} {{ d[('a')] | length }} {{ {1: 'one'}[1] }} {{ {1: 'one'}[1.0] }} {{ {(1, 2): 'pair'}[(1, 2)] }}",
    # if, for, set
    "{% if no %}a{% elif yes %}b{% else %}c{% endif %}", "{% if no %}a{% elif no %}b{% else %}c{% endif %}", "{% if missing %}a{% endif %}b", "{% if 0.0 or [] or {} or '' or () %}a{% else %}b{% endif %}",
    "{% for x in numbers %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.revindex0 }}{{ loop.first }}{{ loop.last }}{{ loop.length }}{{ loop.depth }}{{ loop.depth0 }}{{ loop.previtem }}{{ loop.nextitem }};{% endfor %}",
    "{% for x in [] %}a{% else %}none{% endfor %}{% for x in missing %}a{% else %}none{% endfor %}", "{% for m in messages if m.role == 'user' %}{{ loop.index }}/{{ loop.length }} {{ m.content }}{% if not loop.last %},{% endif %}{% else %}none{% endfor %}",
    "{% for m in messages if m.role == 'none' %}x{% else %}nobody{% endfor %}", "{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}{% for k in d %}{{ k }}{% endfor %}{% for (a, b) in [(1, 2), [3, 4]] %}{{ a }}{{ b }}{% endfor %}",
    "{% for c in 'h\u00e9' %}{{ c }}.{% endfor %}", "{% for x in numbers %}{% if x == 1 %}{% continue %}{% endif %}{% if loop.index == 4 %}{% break %}{% endif %}{{ x }}{% endfor %}", "{% for a in [1,2] %}{% for b in [1,2] %}{% if b == 2 %}{% break %}{% endif %}{{ a }}{{ b }}{{ loop.index }}{% endfor %}{{ loop.index }}{% endfor %}",
    "{% set x = 1 %}{% for i in [1,2] %}{{ x }}{% set x = x + i %}{{ x }}{% endfor %}{{ x }}", "{% set ns = namespace(x=1, y='a') %}{% for i in [1,2] %}{% set ns.x = ns.x + i %}{% endfor %}{{ ns.x }}{{ ns.y }}{{ ns.z is defined }}",
    "{% set x = 1 %}{% if yes %}{% set x = 2 %}{% endif %}{{ x }}", "{% set a, b = 1, 2 %}{{ a }}{{ b }}{% set (c, e) = [3, 4] %}{{ c }}{{ e }}{% set t = 1, 2 %}{{ t }}", "{% set x %}a{{ name }}b{% endset %}{{ x }}{{ x is string }}", "{% set x | upper | replace('A', 'o') %}a{{ name }}{% endset %}{{ x }}",
    "{% set messages = messages[1:] %}{{ messages | length }}", "{% for i in range(3) %}{{ i }}{% endfor %}{{ range(2, 5) | list }}{{ range(5, 0, -2) | list }}{{ range(0) | list }}", "{% for i in [1, 2] %}{% set y = i %}{% endfor %}{{ y is defined }}",
    "{% for i in [1,2,3] %}{{ loop.cycle('a', 'b') }}{{ loop.changed(i // 2) }}{% endfor %}", "{% with a = 1, b = 2 %}{{ a + b }}{% set c = 3 %}{% endwith %}{{ a is defined }}{{ c is defined }}", "",
    "{% for x in [1] %}{% for y in [2] %}{{ x }}{{ y }}{% endfor %}{% endfor %}{% for x, y in [(1, 2)] if x < y %}{{ x }}{% endfor %}", "{% for item in [[1, [2, 3]]] %}{{ item[1][0] }}{% endfor %}", "{% set ns = namespace({'a': 1}) %}{{ ns.a }}{% set ns.b = [ns.a] %}{{ ns.b }}",
    # macros, call, filter blocks, generation
    "{% macro hi(a, b=2, c='x') %}[{{ a }}{{ b }}{{ c }}]{% endmacro %}{{ hi(1) }}{{ hi(1, 3) }}{{ hi(1, c=4) }}{{ hi(a=5) }}{{ hi() }}", "{% macro m(x) %}{% if x > 0 %}{{ x }}{{ m(x - 1) }}{% endif %}{% endmacro %}{{ m(3) }}", "{% set g = 'G' %}{% macro m() %}{{ g }}{{ later }}{% endmacro %}{% set later = 'L' %}{{ m() }}",
    "{% macro box() %}<{{ caller() }}>{% endmacro %}{% call box() %}in {{ name }}{% endcall %}", "{% macro each(xs) %}{% for x in xs %}{{ caller(x) }}{% endfor %}{% endmacro %}{% call(y) each([1, 2]) %}({{ y }}){% endcall %}", "{% filter upper %}a{{ name }}{% endfilter %}{% filter replace('a', 'b') | upper %}aa{% endfilter %}",
    "{% macro m(a, b=[]) %}{{ a }}{{ b }}{% endmacro %}{{ m(1) | trim }}{{ m(2) is string }}", "{% for m in messages %}{% generation %}{{ m.role }}{% endgeneration %}{% endfor %}",
    # tests
    "{{ n is defined }}{{ missing is defined }}{{ missing is undefined }}{{ n is not defined }}{{ nothing is none }}{{ missing is none }}", "{{ 'a' is string }}{{ 1 is string }}{{ d is mapping }}{{ [] is mapping }}{{ [] is iterable }}{{ 'a' is iterable }}{{ 1 is iterable }}{{ d is sequence }}{{ 'a' is sequence }}{{ none is sequence }}{{ missing is iterable }}",
    "{{ 1 is number }}{{ 1.5 is number }}{{ true is number }}{{ '1' is number }}{{ 1 is integer }}{{ true is integer }}{{ 1.0 is float }}{{ true is boolean }}{{ 1 is boolean }}{{ true is true }}{{ 1 is true }}{{ false is false }}{{ 0 is false }}", "{{ 1 is odd }}{{ 2 is even }}{{ 9 is divisibleby 3 }}{{ 9 is divisibleby(2) }}{{ 1 is equalto 1 }}{{ 1 is eq(2) }}{{ 1 is ne 2 }}{{ 1 is lt 2 }}{{ 1 is ge(1) }}{{ 3 is gt 2 }}{{ 3 is le 2 }}",
    "{{ 'a' is in 'abc' }}{{ 'a' is in(['b']) }}{{ 'abc' is lower }}{{ 'ABC' is upper }}{{ 'aBc' is lower }}{{ '' is lower }}{{ none is sameas none }}{{ 1 is sameas true }}{{ range is callable }}{{ 1 is callable }}", "{{ n is defined and n is number }}{{ 'x' if n is string else 'y' }}{{ not n is defined }}{{ n is not none and yes }}", "{{ 'upper' is filter }}{{ 'nope' is filter }}{{ 'odd' is test }}",
    # filters
    "{{ ' a b ' | trim }}|{{ 'xxaxx' | trim('x') }}|{{ wide | trim }}|{{ 5 | trim }}|{{ missing | trim }}|", "{{ 'aBc d-e (f' | upper }} {{ 'ABC' | lower }} {{ 'hello wORLD-foo bar(baz' | title }} {{ 'hELLO wORLD' | capitalize }}", "{{ 'h\u00e9llo' | length }} {{ numbers | count }} {{ d | length }} {{ missing | length }} {{ '' | length }}",
    "{{ numbers | join(', ') }} {{ ['a', 1, none] | join }} {{ people | join('/', attribute='name') }} {{ 'abc' | join('.') }} {{ [] | join(',') }}|", "{{ 'aXbXc' | replace('X', '-') }} {{ 'aXbXc' | replace('X', '-', 1) }} {{ 'abc' | replace('', '.') }} {{ 121 | replace(1, 'x') }} {{ 'aaa' | replace('aa', 'b') }}",
    "{{ missing | default('x') }} {{ empty | default('x') }}|{{ empty | default('x', true) }} {{ nothing | default('x') }} {{ nothing | d('y', boolean=true) }} {{ missing | default }}|", "{{ d | tojson }} {{ 'a\u00e9\U0001f600\"\\\\\\n\\t\\x01</>' | tojson }} {{ [1.0, 1e20, true, none] | tojson }} {{ {} | tojson }} {{ [] | tojson }} {{ (1, 2) | tojson }} {{ {1: 2, none: 3, true: 4, 1.5: 5} | tojson }}",
    "{{ d | tojson(indent=2) }}", "{{ tools | tojson(indent=4) }}", "{{ [[], {}, [1]] | tojson(indent=1) }}", "{{ {'b': 1, 'a': {'d': 1, 'c': 2}} | tojson(sort_keys=true) }}", "{{ numbers | first }} {{ numbers | last }} {{ [] | first }}| {{ 'abc' | first }} {{ 'abc' | last }} {{ d | first }}", "{{ 'ab' | list }} {{ d | list }} {{ (1, 2) | list }}",
    "{{ '42' | int }} {{ '4.7' | int }} {{ 'x' | int }} {{ 'x' | int(3) }} {{ 3.9 | int }} {{ -3.9 | int }} {{ ' 7 ' | int }} {{ true | int }} {{ none | int }} {{ '1.5' | float }} {{ 'x' | float }} {{ 2 | float }} {{ '1e3' | float }} {{ '-12' | int }}",
    "{{ 42 | string ~ 1 }} {{ true | string }} {{ '<a>' | safe }} {{ '<a href=\"x\">&\\'' | e }}", "{{ {'a': 1, 'b': 2} | items | list }} {{ {'B': 1, 'a': 3, 'C': 2} | dictsort }} {{ {'B': 1, 'a': 3, 'C': 2} | dictsort(true) }} {{ {'B': 1, 'a': 3, 'C': 2} | dictsort(by='value') }} {{ {'B': 1, 'a': 3} | dictsort(false, 'key', true) }}",
    "{{ messages | selectattr('role', 'equalto', 'user') | list | length }} {{ messages | rejectattr('role', 'eq', 'user') | map(attribute='role') | list }} {{ people | selectattr('home') | map(attribute='home.town') | join(',') }} {{ people | selectattr('home', 'defined') | list | length }} {{ people | rejectattr('home', 'defined') | map(attribute='name') | first }}",
    "{{ [1, 2, 3, 4] | select('odd') | list }} {{ [0, 1, '', 'a'] | select | list }} {{ [1, 2, 3] | reject('gt', 1) | list }} {{ [0, 1] | reject | list }} {{ messages | selectattr('role', 'in', ['user', 'system']) | list | length }}", "{{ ['a', 'b'] | map('upper') | list }} {{ people | map(attribute='home.town', default='?') | list }} {{ ['a,b', 'c'] | map('replace', ',', ';') | list }} {{ [[1, 2], [3, 4]] | map('first') | list }} {{ [[1, 2]] | map(attribute=1) | list }}",
    "{{ words | unique | list }} {{ words | unique(true) | list }} {{ words | sort }} {{ words | sort(reverse=true) }} {{ words | sort(case_sensitive=true) }} {{ numbers | sort }} {{ people | sort(attribute='age') | map(attribute='name') | list }} {{ people | unique(attribute='age') | map(attribute='name') | list }}", "{{ numbers | reverse | list }} {{ 'h\u00e9' | reverse }} {{ -3 | abs }} {{ -2.5 | abs }} {{ numbers | sum }} {{ people | sum(attribute='age') }} {{ [1.5, 2] | sum(start=1) }} {{ numbers | min }} {{ numbers | max }} {{ words | min }} {{ words | max(case_sensitive=true) }} {{ people | max(attribute='age') | attr('name') is defined }} {{ [] | max }}|",
    "{{ 2.5 | round }} {{ 3.5 | round }} {{ 2.567 | round(2) }} {{ 2.1 | round(method='ceil') }} {{ 2.9 | round(0, 'floor') }} {{ 42 | round }} {{ 2.675 | round(2) }} {{ 2.125 | round(2, 'ceil') }}", "{{ text | indent }}\n{{ text | indent(2, true) }}\n{{ text | indent(2, blank=true) }}\n{{ text | indent('> ') }}\n{{ 'a\\n' | indent }}|", "{{ '%s is %d, %.2f %%' | format('a', 3, 1.255) }} {{ '%f' | format(1) }} {{ 1 | abs | string | length }}",
    "{{ -1 | abs }} {{ (-1) | abs }} {{ 2 * 3 | string | length }} {{ 'a' ~ 'b' | upper }} {{ 'a b'.split() | join('-') | upper }} {{ [1,2] | length > 1 }} {{ messages | length != 0 }} {{ not messages | length == 1 }}",
    # methods
    "{{ 'Ab'.upper() }} {{ 'Ab'.lower() }} {{ \"they're bill's\".title() }} {{ 'aB c'.capitalize() }} {{ ' x '.strip() }}|{{ 'xyax'.strip('xy') }}|{{ '\\n\\na\\n'.lstrip('\\n') }}|{{ 'a\\n\\n'.rstrip('\\n') }}|{{ wide.strip() }}|{{ ' a '.rstrip() }}|", "{{ 'a,b,,c'.split(',') }} {{ ' a  b '.split() }} {{ 'a-b-c'.split('-', 1) }} {{ ' a b  c '.split(none, 1) }} {{ ''.split(',') }} {{ ''.split() }} {{ 'a</think>\\n\\nb'.split('</think>')[-1].lstrip('\\n') }} {{ 'a-b-c'.rsplit('-', 1) }} {{ 'abc'.split('abc') }}",
    "{{ 'abc'.startswith('ab') }} {{ 'abc'.endswith('bc') }} {{ 'abc'.startswith(('x', 'a')) }} {{ 'abc'.endswith('') }} {{ 'a-a'.replace('a', 'b') }} {{ 'a-a'.replace('a', 'b', 1) }} {{ 'abc'.find('c') }} {{ 'h\u00e9c'.find('c') }} {{ 'abc'.find('z') }} {{ 'banana'.count('an') }} {{ 'xay'.removeprefix('x').removesuffix('y') }}", "{{ 'a\\nb\\r\\nc\\n'.splitlines() }} {{ ','.join(['a', 'b']) }} {{ '{} {}'.format(1, 'a') }} {{ '{1}{0}{x}{{}}'.format(1, 2, x=3) }} {{ '12'.isdigit() }} {{ ''.isdigit() }} {{ ' '.isspace() }} {{ 'Ab'.islower() }} {{ 'AB'.isupper() }}",
    "{{ {'a': 1}.items() | list }} {{ {'a': 1}.keys() | list }} {{ {'a': 1}.values() | list }} {{ {'a': 1}.get('a') }} {{ {'a': 1}.get('b') }} {{ {'a': 1}.get('b', 2) }} {{ [1, 2].index(2) }} {{ [1, 2, 1].count(1) }} {{ dict(a=1, b='x') }} {{ dict({'a': 1}, b=2) }}",
    "{{ strftime_now('%d %b %Y %H:%M:%S %A %B %j %y %%') }} {{ strftime_now('%Y-%m-%d') }} {{ strftime_now is defined }} {{ raise_exception is defined }}",
    # whole statements as chat templates have them
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ ' [U] ' + message['content'].strip() }}{% elif message['role'] == 'system' %}{{ '<<' + message['content'] | trim + '>>' }}{% endif %}{% endfor %}", "{%- for m in messages[::-1] %}{%- set i = (messages | length - 1) - loop.index0 %}{{ i }}{{ m.role }} {% endfor %}", "{{- 'x' + (messages[0].content if messages[0].role == 'system' else 'y') | trim + 'z' }}",
    "{% set ns = namespace(last=-1) %}{% for m in messages %}{% if m.role == 'user' and not (m.content.startswith('<t>') and m.content.endswith('</t>')) %}{% set ns.last = loop.index0 %}{% endif %}{% endfor %}{{ ns.last }}", "{%- if tools is defined and tools is iterable and tools | length > 0 %}\n{{- tools[0].function.name }}\n{%- endif %}", "{{ bos_token }}{{ (messages | selectattr('role', 'equalto', 'user') | list)[-1] == messages[-1] }}",
    # errors
    "{{ missing.x }}", "{{ missing() }}", "{{ missing + 1 }}", "{{ 'a' + 1 }}", "{{ 1 < 'a' }}", "{{ none | length }}", "{% for x in 5 %}{% endfor %}", "{{ 1 / 0 }}", "{{ 1 % 0 }}", "{{ raise_exception('No way: ' ~ n) }}", "{{ 'x' | nope }}", "{{ 'x' is nope }}", "{{ name() }}", "{% if %}{% endif %}", "{{ }}", "{{ 1", "{% if yes %}", "{% endif %}", "{% nope %}", "{# x",
    "{{ [1, 2 }}", "{{ 'x }}", "{% set x %}", "{% for x in y %}", "{{ 1 +  }}", "{{ a b }}", "{% raw %} x", "{% break %}", "{{ 'a' in 5 }}", "{% set d.x = 1 %}", "{% set a, b = [1] %}", "{{ none < 1 }}", "{{ missing[0] }}", "{{ missing < 1 }}", "{{ missing | tojson }}", "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}", "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}", "{{ d.nested.zzz.k }}", "{{ 'a'.split('') }}",
    "{{ [].index(1) }}", "{{ range(1, 2, 0) }}", "{{ none + 'a' }}", "{{ [1] + 'a' }}", "{{ {[1]: 2} }}", "{{ numbers[::0] }}", "{{ -'a' }}", "{% elif yes %}", "{{ (1, 2 }}", "{{ x. }}", "{{ x[ }}", "{% macro %}{% endmacro %}", "{{ 3 is divisibleby 0 }}",
]


def environment():
    """As Hugging Face's transformers set it up (utils/chat_template_utils.py)."""

    class Generation(jinja2.ext.Extension):
        tags = {"generation"}

        def parse(self, parser):
            line = next(parser.stream).lineno
            body = parser.parse_statements(["name:endgeneration"], drop_needle=True)
            return jinja2.nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        def _body(self, caller):
            return caller()

    def raise_exception(message):
        raise jinja2.exceptions.TemplateError(message)

    def tojson(x, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    env = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, jinja2.ext.loopcontrols]
    )
    env.filters["tojson"] = tojson
    env.globals["raise_exception"] = raise_exception
    env.globals["strftime_now"] = NOW.strftime
    return env


def render(source, variables):
    try:
        return {"expected": environment().from_string(source).render(**variables)}
    except Exception:  # whatever Python calls it
        return {"error": True}


def listed_cases():
    """Those of language.txt: a template a line, but for its titles."""
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "language.txt"), encoding="utf-8") as file:
        return [line.rstrip("\n") for line in file if not line.startswith("# ")]


def main():
    cases = [{"template": source, **render(source, VARIABLES)} for source in CASES + listed_cases()]
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "cases.json"), "w", encoding="utf-8") as file:
        json.dump({"variables": VARIABLES, "cases": cases}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print(len(cases), "cases,", sum("error" in case for case in cases), "of them errors")


if __name__ == "__main__":
    main()
