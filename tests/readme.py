#!/usr/bin/env python3
"""readme.py [README.md]: runs every command that the README shows, as run.sh has left the checkout, in a folder of its own.

A command is a line of an indented block that begins with "$ ", or that names a program of the checkout. MODEL stands for
the bundled model. "> " lines below a command are what a person types into it. Of what a command prints, the README's lines
are compared where they say the same each time: those of commands with a seed or --temp 0. ./test.sh is left out, since it
runs this."""
import os
import re
import subprocess
import sys
import tempfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
PROGRAMS = ("./run.sh", "./test.sh", "build/contexture", "mpirun")


def blocks(text):
    """Indented blocks, as lists of lines."""
    block = []
    for line in text.split("\n") + [""]:
        if line.startswith("    "):
            block.append(line[4:])
        elif block:
            yield block
            block = []


def commands(block):
    """(command, typed lines, printed lines) of a block."""
    found = []
    for line in block:
        shown = line.startswith("$ ")
        line = line[2:] if shown else line
        if shown or line.startswith(PROGRAMS):
            found.append((re.sub(r"\s{2,}#.*", "", line).strip(), [], []))
        elif found and line.startswith("> "):
            found[-1][1].append(line[2:])
        elif found:
            found[-1][2].append(line)
    return found


def words(text):
    return " ".join(text.split())


def runnable(command, folder):
    command = command.replace("mpirun ", "mpirun --oversubscribe --allow-run-as-root ")
    for name in ("./run.sh", "build/contexture", "models/"):
        command = re.sub(r"(?<![\w./])" + re.escape(name), os.path.join(ROOT, name), command)
    command = re.sub(r"\bMODEL\b", os.path.join(ROOT, "models", "stories-1m.gguf"), command)
    return re.sub(r"\bARGUMENTS\b", "-p Hello -n 3", command)


def check(command, typed, printed, folder, environment):
    done = subprocess.run(["bash", "-c", runnable(command, folder)], cwd=folder, env=environment, text=True,
                          input="".join(line + "\n" for line in typed), capture_output=True, timeout=600)
    if done.returncode != 0:
        return "exit status %d\n%s" % (done.returncode, done.stderr[-2000:])
    if "--temp 0" not in command and "--seed" not in command or not printed or printed[0].startswith("("):
        return None
    expected = words(" ".join(printed))
    expected = expected.split(" seed ")[0]  # what follows goes to stderr and tells how fast it was
    if not words(done.stdout).startswith(expected):
        return "the README shows\n%s\nand it printed\n%s" % (expected, words(done.stdout))
    return None


def main():
    readme = sys.argv[1] if len(sys.argv) > 1 else os.path.join(ROOT, "README.md")
    with open(readme) as file:
        all_commands = [c for block in blocks(file.read()) for c in commands(block)]
    passed = failed = 0
    with tempfile.TemporaryDirectory() as folder:
        with open(os.path.join(folder, "prompt.txt"), "w") as file:
            file.write("Once upon a time")
        for command, typed, printed in all_commands:
            if command.startswith("./test.sh"):
                continue
            wrong = check(command, typed, printed, folder, os.environ)
            print("%s  %s" % ("FAILED" if wrong else "ok    ", command), flush=True)
            if wrong:
                print(wrong)
            passed, failed = passed + (not wrong), failed + bool(wrong)
    print("README: %d passed, %d failed" % (passed, failed))
    if passed < 10:
        sys.exit("the README shows too few commands: are they still indented blocks?")
    sys.exit(1 if failed else 0)


main()
