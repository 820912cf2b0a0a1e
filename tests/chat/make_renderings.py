#!/usr/bin/env python3
"""Writes renderings.json beside this file: every template of templates/ over every conversation, by Jinja2 itself with
the settings that chat templates are written for.  python3 tests/chat/make_renderings.py
"""

import glob
import json
import os
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "jinja"))
sys.dont_write_bytecode = True
import make_cases  # noqa: E402


def user(content):
    return {"role": "user", "content": content}


def assistant(content):
    return {"role": "assistant", "content": content}


SYSTEM = {"role": "system", "content": "Be brief."}
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Tells the weather",
        "parameters": {"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]},
    },
}
CALL = {"id": "abcdef123", "type": "function", "function": {"name": "weather", "arguments": {"town": "Ulm", "days": 2}}}

CONVERSATIONS = {
    "one question": {"messages": [user("Hi there")]},
    "told and asked": {"messages": [SYSTEM, user(" What is 2 + 2? ")]},
    "three turns": {"messages": [SYSTEM, user("a"), assistant("b"), user("c"), assistant("d\n"), user("\u00e9\U0001f600")]},
    "asked again": {"messages": [user("Hi"), assistant("Hello!"), user("Bye")]},
    "answered": {"messages": [user("Hi"), assistant("Hello!")]},
    "thought": {"messages": [user("2+2?"), assistant("<think>\neasy\n</think>\n\n4"), user("3+3?"), assistant("<think>\nhm\n</think>\n\n6")]},
    "without thinking": {"messages": [user("2+2?")], "enable_thinking": False},
    "out of turn": {"messages": [user("a"), user("b")]},
    "with tools": {"messages": [SYSTEM, user("Rain in Ulm?")], "tools": [TOOL, TOOL]},
    "tools used": {
        "messages": [
            user("Rain in Ulm?"),
            {"role": "assistant", "content": "", "tool_calls": [CALL]},
            {"role": "tool", "content": "yes", "tool_call_id": "abcdef123"},
        ],
        "tools": [TOOL],
    },
}


def main():
    made = {}
    for path in sorted(glob.glob(os.path.join(HERE, "templates", "*.jinja"))):
        source = open(path, encoding="utf-8").read()
        made[os.path.basename(path)] = {
            f"{name}, {'to be answered' if prompt else 'as it is'}": make_cases.render(
                source, {**conversation, "bos_token": "<s>", "eos_token": "</s>", "add_generation_prompt": prompt}
            )
            for name, conversation in CONVERSATIONS.items()
            for prompt in (False, True)
        }
    with open(os.path.join(HERE, "renderings.json"), "w", encoding="utf-8") as file:
        json.dump({"conversations": CONVERSATIONS, "renderings": made}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    print(len(made), "templates,", sum(len(m) for m in made.values()), "renderings,", sum("error" in r for m in made.values() for r in m.values()), "refusals")


if __name__ == "__main__":
    main()
