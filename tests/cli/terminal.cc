#include "cli/terminal.h"

#include <poll.h>
#include <pty.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "support/built.h"

namespace contexture {

Terminal::Terminal(const std::vector<std::string>& arguments) {
  const std::string program = contexture_program();
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& a : arguments) argv.push_back(const_cast<char*>(a.c_str()));
  argv.push_back(nullptr);
  child_ = forkpty(&terminal_, nullptr, nullptr, nullptr);
  if (child_ == 0) {
    termios settings = {};
    tcgetattr(STDIN_FILENO, &settings);
    settings.c_lflag &= static_cast<tcflag_t>(~ECHO);
    tcsetattr(STDIN_FILENO, TCSANOW, &settings);
    execv(program.c_str(), argv.data());
    _exit(127);
  }
}

Terminal::~Terminal() {
  if (child_ > 0) {
    kill(child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }
  close(terminal_);
}

void Terminal::type(const std::string& keys) const {
  if (write(terminal_, keys.data(), keys.size()) < 0) return;  // it has ended; what waits for it will say so
}

bool Terminal::read_more() {
  pollfd ready = {.fd = terminal_, .events = POLLIN, .revents = 0};
  if (poll(&ready, 1, 1000) <= 0) return true;
  char buffer[4096];
  const ssize_t count = ::read(terminal_, buffer, sizeof(buffer));
  if (count <= 0) return false;  // nobody holds its other end
  shown_.append(buffer, static_cast<size_t>(count));
  return true;
}

bool Terminal::wait_for(const std::string& text) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < end) {
    const size_t at = shown_.find(text);
    if (at != std::string::npos) {
      shown_.erase(0, at + text.size());
      return true;
    }
    if (!read_more()) break;
  }
  return false;
}

bool Terminal::wait_for_anything() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (shown_.empty() && std::chrono::steady_clock::now() < end && read_more()) {
  }
  return !shown_.empty();
}

int Terminal::status() {
  const auto end = std::chrono::steady_clock::now() + std::chrono::minutes(1);
  while (std::chrono::steady_clock::now() < end && read_more()) {
  }
  int status = 0;
  if (waitpid(child_, &status, 0) == child_) child_ = -1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

}  // namespace contexture
