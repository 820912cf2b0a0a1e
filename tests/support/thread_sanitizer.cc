// What the thread sanitizer is told to pass over.

/// An exception that a future or an exception_ptr carries to another thread is counted and freed in libstdc++, which is
/// not instrumented: the sanitizer does not see that the count is atomic, and takes whoever frees it for a race with
/// whoever read what it says.
extern "C" const char* __tsan_default_suppressions() {
  return "race:std::__exception_ptr::exception_ptr::_M_release\n"
         "race:__cxa_end_catch\n";
}
