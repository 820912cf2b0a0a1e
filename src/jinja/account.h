#pragma once

#include <fmt/format.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <utility>

namespace contexture::jinja {

/// What stops a template, without its line; Template adds that and throws Error.
struct Fault {
  std::string message;
};

template <typename... Args>
[[noreturn]] void raise(fmt::format_string<Args...> format, Args&&... args) {
  throw Fault{fmt::format(format, std::forward<Args>(args)...)};
}

/// What bounds a rendering, whatever the template does. Steps and memory grow with what the template is given: a long
/// conversation is more work than a short one.
struct Bounds {
  size_t work = size_t{1} << 27;  ///< steps (a byte moved is one, a statement 32): about a second
  size_t work_a_byte = 4096;      ///< ... and as many more for each byte of the variables and the template
  size_t memory = size_t{64} << 20;
  size_t memory_a_byte = 256;  ///< a text taken apart into characters takes about 160
  double seconds = 20;
  size_t output = size_t{16} << 20;  ///< bytes
};

/// Every byte made and every step taken is paid for from here.
class Account {
 public:
  Account(const Bounds& bounds, size_t input)
      : steps_(sum(bounds.work, bounds.work_a_byte, input)),
        memory_(sum(bounds.memory, bounds.memory_a_byte, input)),
        end_(std::chrono::steady_clock::now() + std::chrono::duration_cast<std::chrono::steady_clock::duration>(
                                                    std::chrono::duration<double>(bounds.seconds))),
        seconds_(bounds.seconds) {}

  /// Raises a Fault where the account is empty.
  void spend(size_t steps) {
    if (steps > steps_) raise("it takes more work than any chat template should; is it made to hang?");
    steps_ -= steps;
    unwatched_ += steps;
    if (unwatched_ > kStepsBetweenLooks) look_at_clock();
  }
  void take_memory(size_t bytes) {
    if (bytes > memory_) raise("it takes more memory than any chat template should; is it made to eat it all?");
    memory_ -= bytes;
  }
  /// Before so much is made.
  void check_memory(size_t bytes) {
    take_memory(bytes);
    give_memory(bytes);
  }
  void give_memory(size_t bytes) { memory_ += bytes; }

 private:
  static constexpr size_t kStepsBetweenLooks = size_t{1} << 20;

  static size_t sum(size_t base, size_t factor, size_t input) {
    size_t more = 0, all = 0;
    if (__builtin_mul_overflow(factor, input, &more) || __builtin_add_overflow(base, more, &all)) return SIZE_MAX / 2;
    return all;
  }
  void look_at_clock() {
    unwatched_ = 0;
    if (std::chrono::steady_clock::now() > end_)
      raise("it runs for more than {} seconds; is it made to hang?", seconds_);
  }

  size_t steps_, memory_;
  size_t unwatched_ = 0;
  std::chrono::steady_clock::time_point end_;
  double seconds_;
};

/// Memory that was taken from an account and goes back when this ends.
class Charge {
 public:
  Charge() = default;
  explicit Charge(Account& account, size_t bytes = 0) : account_(&account) { grow(bytes); }
  Charge(Charge&& other) noexcept
      : account_(std::exchange(other.account_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
  Charge& operator=(Charge&& other) noexcept {
    std::swap(account_, other.account_);
    std::swap(bytes_, other.bytes_);
    return *this;
  }
  ~Charge() {
    if (account_) account_->give_memory(bytes_);
  }
  void grow(size_t bytes) {
    account_->take_memory(bytes);
    bytes_ += bytes;
  }

 private:
  Account* account_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace contexture::jinja
