#include "cli/interrupts.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdint>

#include "base/atomic_file.h"
#include "base/log.h"

namespace contexture::cli {
namespace {

// Set by the handler, on whatever thread it runs.
std::atomic<bool> interrupt_flag{false};
std::atomic<int> last_signal{0}, ending_signal{0};
std::atomic<int> interrupts_left{0};
std::atomic<int> wake_up{-1};  // an eventfd that can be read once interrupt_flag is set
static_assert(std::atomic<bool>::is_always_lock_free && std::atomic<int>::is_always_lock_free,
              "set from a signal handler");

bool nobody_reads_stdout() {
  pollfd out = {.fd = STDOUT_FILENO, .events = 0, .revents = 0};
  return poll(&out, 1, 0) > 0 && (out.revents & (POLLERR | POLLHUP)) != 0;
}

void on_signal(int signal) {
  const int saved_errno = errno;
  // Who reads stderr may go, and who has been interrupted may find nobody to tell.
  const bool matters = signal != SIGPIPE || (!interrupt_flag && nobody_reads_stdout());
  if (matters) {
    if (--interrupts_left < 0) {
      remove_partial_paths();
      _exit(128 + signal);
    }
    last_signal = signal;
    if (signal != SIGINT) ending_signal = signal;
    interrupt_flag = true;
    const uint64_t one = 1;
    (void)!write(wake_up, &one, sizeof(one));
  }
  errno = saved_errno;
}

void forget_waking() {
  uint64_t ignored;
  (void)!read(wake_up, &ignored, sizeof(ignored));
}

void install_handlers() {
  if (wake_up >= 0) return;
  wake_up = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  struct sigaction action = {}, old = {};
  action.sa_handler = on_signal;
  action.sa_flags = 0;  // no SA_RESTART: whoever waits is to notice
  for (const int signal : {SIGINT, SIGTERM, SIGPIPE}) sigaction(signal, &action, nullptr);
  sigaction(SIGHUP, nullptr, &old);
  if (old.sa_handler != SIG_IGN) sigaction(SIGHUP, &action, nullptr);  // nohup's wish
  std::signal(SIGXFSZ, SIG_IGN);
}

}  // namespace

void prepare_process() {
  open_standard_streams();
  install_handlers();
}

void catch_interrupts(int times) {
  install_handlers();
  interrupts_left = times;
  // In this order a signal that comes meanwhile is not lost: at worst what wakes a reader is, who looks at the flag
  // first.
  interrupt_flag = false;
  forget_waking();
  if (ending_signal != 0) interrupt_flag = true;
}

const std::atomic<bool>& interrupted() {
  return interrupt_flag;
}

int interrupted_status() {
  return 128 + (ending_signal != 0 ? ending_signal : last_signal);
}

bool read_some(int descriptor, std::string& to) {
  while (!interrupt_flag) {
    pollfd wait[] = {{.fd = descriptor, .events = POLLIN, .revents = 0},
                     {.fd = wake_up, .events = POLLIN, .revents = 0}};
    if (poll(wait, 2, -1) < 0 && errno != EINTR) return false;
    if (wait[1].revents != 0 && !interrupt_flag) forget_waking();
    if (wait[0].revents == 0) continue;
    char buffer[65536];
    const ssize_t count = read(descriptor, buffer, sizeof(buffer));
    if (count < 0 && (errno == EINTR || errno == EAGAIN)) continue;
    if (count > 0) to.append(buffer, static_cast<size_t>(count));
    if (count == 0) errno = 0;
    return count > 0;
  }
  errno = EINTR;
  return false;
}

}  // namespace contexture::cli
