#!/usr/bin/env python3
"""install_test.py BUILD [CHECK...]: installs a build folder into a prefix of its own and looks at what is there.

What is checked: no name of the library but public ones is seen, and it neither ends its host nor writes to its stdout; no
program needs MPI; no path of the source tree is in what ships; a prefix that was moved works; an outside program builds
and runs, by CMake and by pkg-config; as a part of another project the library comes alone."""
import os
import re
import shutil
import subprocess
import sys
import tempfile
import unittest

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
OUTSIDE = os.path.join(ROOT, "tests", "install", "outside")
BUILD = ""
PROMPT = "Once upon a time"


def run(*command, status=0, **options):
    """Runs a command; its output, both streams together, where it ends as expected."""
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300, **options)
    if done.returncode != status:
        raise AssertionError("%s: exit status %d\n%s" % (" ".join(command), done.returncode, done.stdout[-3000:]))
    return done.stdout


def cache_entry(name):
    """A variable of the build folder's CMakeCache.txt."""
    with open(os.path.join(BUILD, "CMakeCache.txt")) as cache:
        return re.search(r"^%s:\w+=(.*)$" % name, cache.read(), re.M).group(1)


class Installed(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp()
        made = os.path.join(cls.folder, "made")
        run("cmake", "--install", BUILD, "--prefix", made)
        cls.prefix = os.path.join(cls.folder, "moved")  # nothing may depend on where it was put first
        os.rename(made, cls.prefix)
        cls.libraries = os.path.join(cls.prefix, cls.library_folder())
        cls.library = os.path.join(cls.libraries, "libcontexture.so")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def library_folder(cls):
        for folder, _, files in os.walk(cls.prefix):
            if "libcontexture.so" in files:
                return os.path.relpath(folder, cls.prefix)
        raise AssertionError("no libcontexture.so below " + cls.prefix)

    def at(self, *names):
        return os.path.join(self.prefix, *names)

    def shipped(self):
        """Programs and libraries, without links to them."""
        files = []
        for folder in (self.at("bin"), self.libraries):
            paths = [os.path.join(folder, name) for name in os.listdir(folder)]
            files += [path for path in paths if os.path.isfile(path) and not os.path.islink(path)]
        self.assertGreaterEqual(len(files), 4)
        return files

    def environment(self, **more):
        return dict(os.environ, LD_LIBRARY_PATH=self.libraries, **more)

    def expect_story(self, program):
        model = self.at("share", "contexture", "models", "stories-1m.gguf")
        told = run(program, model, PROMPT, env=self.environment())
        self.assertIn("/no/such/model", told)
        self.assertRegex(told, PROMPT + r", .{30}")
        self.assertNotRegex(run("ldd", program, env=self.environment()), "libmpi")

    def test_library_shows_public_names_only(self):
        names = [line.split(None, 2)[2] for line in run("nm", "-DC", "--defined-only", self.library).splitlines()]
        ours = r"((typeinfo|typeinfo name|vtable) for )?contexture::"
        self.assertEqual([n for n in names if not re.match(ours, n)], [])
        self.assertEqual([n for n in names if re.match(ours + r"\w+::(Impl|State)\b", n)], [])
        # As marked, and nothing of what the rooms keep among themselves.
        classes = {re.match(ours + r"(\w+)", n).group(3) for n in names}
        public = set()
        for name in os.listdir(self.at("include", "contexture")):
            with open(self.at("include", "contexture", name)) as header:
                marked = re.findall(r"(?:class|struct) CONTEXTURE_API (\w+)|CONTEXTURE_API [\w:<>&* ]*?(\w+)\(",
                                    header.read())
                public |= {a or b for a, b in marked}
        self.assertEqual(classes - public, set())
        self.assertIn("Error", classes)

    def test_library_neither_ends_nor_prints(self):
        names = run("nm", "-D", "--undefined-only", self.library)
        wanted = {re.split("[@ ]", line.split()[1])[0] for line in names.splitlines()}
        forbidden = {"exit", "_exit", "_Exit", "quick_exit", "abort", "puts", "printf", "putchar", "fputs", "vprintf",
                     "__printf_chk", "stdout", "_ZSt4cout", "signal", "sigaction"}
        self.assertEqual(wanted & forbidden, set())
        self.assertIn("fwrite", wanted, "what is not there would be seen if it were")

    def test_nothing_needs_mpi(self):
        for path in self.shipped():
            if not path.endswith("libcontexture_mpi.so"):
                self.assertNotRegex(run("ldd", path, env=self.environment()), "libmpi|not found", path)

    def test_no_path_of_the_source_tree(self):
        for path in self.shipped():
            with open(path, "rb") as file:
                content = file.read()
            for folder in {ROOT, BUILD}:
                self.assertNotIn(os.fsencode(folder), content, path)

    def test_program_finds_what_ships(self):
        program = self.at("bin", "contexture")
        story = run(program, "run", "-p", PROMPT, "-n", "20", "--temp", "0", cwd=self.folder)
        self.assertRegex(story, PROMPT + r", .{30}")
        graphs = os.path.join(self.folder, "graphs")
        run(program, "compile", "-o", graphs, "--context", "64", "--recipe", "float")
        told = run(self.at("bin", "contexture_llm_generate"), "--ctx_dir", graphs, "--prompt", PROMPT, cwd=self.folder)
        self.assertRegex(told, r", .{30}")

    def test_without_the_plugin_one_line_says_so(self):
        alone = os.path.join(self.folder, "alone", "bin")
        os.makedirs(alone)
        shutil.copy(self.at("bin", "contexture"), alone)
        told = run(os.path.join(alone, "contexture"), "run", "--ring", "-p", PROMPT, "-m",
                   self.at("share", "contexture", "models", "stories-1m.gguf"), status=1)
        self.assertRegex(told, r"^error: no ranks over MPI: .*--local-ranks N.*\n$")

    def test_outside_program_by_cmake(self):
        build = os.path.join(self.folder, "outside")
        run("cmake", "-S", OUTSIDE, "-B", build, "-G", "Ninja", "-DCMAKE_PREFIX_PATH=" + self.prefix,
            "-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_CXX_COMPILER=" + cache_entry("CMAKE_CXX_COMPILER"))
        run("cmake", "--build", build)
        self.expect_story(os.path.join(build, "outside"))

    def test_outside_program_by_pkg_config(self):
        program = os.path.join(self.folder, "by_pkg_config")
        environment = self.environment(PKG_CONFIG_PATH=os.path.join(self.libraries, "pkgconfig"))
        flags = run("pkg-config", "--cflags", "--libs", "contexture", env=environment).split()
        source = os.path.join(OUTSIDE, "outside.cc")
        run(cache_entry("CMAKE_CXX_COMPILER"), "-std=c++20", "-Wall", "-Wextra", "-Werror", source, *flags, "-o", program)
        self.expect_story(program)

    def test_part_of_another_project(self):
        source = os.path.join(self.folder, "host")
        os.makedirs(source)
        with open(os.path.join(source, "CMakeLists.txt"), "w") as file:
            file.write("cmake_minimum_required(VERSION 3.25)\nproject(host CXX)\n"
                       "add_subdirectory(%s contexture)\n"
                       "add_executable(host %s)\ntarget_link_libraries(host contexture::contexture)\n"
                       % (ROOT, os.path.join(OUTSIDE, "outside.cc")))
        build = os.path.join(source, "build")
        run("cmake", "-S", source, "-B", build, "-G", "Ninja")
        targets = run("cmake", "--build", build, "--target", "help")
        self.assertIn("contexture_library", targets)
        self.assertNotRegex(targets, "test_|_bench|example_|contexture_cli|contexture_llm_generate")
        # What is ours is compiled our way, and what is the host's is not.
        commands = run("ninja", "-C", build, "-t", "commands", "host")
        self.assertIn("-ffp-contract=off", commands)
        of_host = [line for line in commands.splitlines() if line.rstrip().endswith("outside.cc")]
        self.assertEqual(len(of_host), 1)
        self.assertNotIn("-ffp-contract", of_host[0])


if __name__ == "__main__":
    BUILD = os.path.abspath(sys.argv.pop(1))
    unittest.main()
