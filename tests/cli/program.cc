#include "cli/program.h"

#include <fcntl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "support/random_model.h"

namespace contexture {
namespace {

std::string read_all(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

int exit_status(int wait_status) {
  return WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 128 + WTERMSIG(wait_status);
}

}  // namespace

Ended run_program(const std::string& arguments, const std::string& input, const std::string& program) {
  const TemporaryFile in(".in"), out(".out"), err(".err");
  std::ofstream(in.path(), std::ios::binary) << input;
  std::string command = "exec '";
  command += program + "' " + arguments + " <" + in.path() + " >" + out.path() + " 2>" + err.path();
  const pid_t child = fork();
  if (child == 0) {
    execl("/bin/sh", "sh", "-c", command.c_str(), nullptr);
    _exit(127);
  }
  int status = 0;
  rusage used = {};
  wait4(child, &status, 0, &used);
  return {exit_status(status), read_all(out.path()), read_all(err.path()), static_cast<size_t>(used.ru_maxrss) * 1024};
}

Ended run_program_and_interrupt(const std::vector<std::string>& arguments, int signal) {
  const TemporaryFile out(".out"), err(".err");
  std::ofstream(out.path()).close();
  const std::string program = contexture_program();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    dup2(open(out.path().c_str(), O_WRONLY | O_TRUNC), STDOUT_FILENO);
    dup2(open(err.path().c_str(), O_WRONLY | O_CREAT, 0600), STDERR_FILENO);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
  int status = 0;
  while (std::filesystem::file_size(out.path()) == 0 && waitpid(child, &status, WNOHANG) == 0) usleep(1000);
  kill(child, signal);
  waitpid(child, &status, 0);
  return {exit_status(status), read_all(out.path()), read_all(err.path()), 0};
}

Ended run_script(const std::string& script) {
  const TemporaryFile file(".sh");
  std::ofstream(file.path()) << "C='" << contexture_program() << "'\n" << script << "\n";
  return run_program(file.path(), {}, "/bin/bash");
}

}  // namespace contexture
