#pragma once

#include <atomic>
#include <string>

namespace contexture::cli {

/// What ends a program from outside: Ctrl-C (SIGINT), SIGTERM, SIGHUP, and SIGPIPE where nobody reads stdout any more.
/// A command that runs for long catches them, looks at interrupted() and ends cleanly; elsewhere they end it at once,
/// and its partial files go with it. The exit status is 128 and the signal's number, as shells say it.

/// For main, before anything is opened: closed standard streams are opened, signals are set up, and a write beyond the
/// limit of a file's size is an error like a full disk.
void prepare_process();

/// Makes the next `times` signals set `interrupted` instead of ending the program; the one after them ends it at once.
/// Called again, it forgets a Ctrl-C that came; the other signals are not forgotten.
void catch_interrupts(int times = 1);
const std::atomic<bool>& interrupted();
/// The exit status of a program that was interrupted.
int interrupted_status();

/// Waits for bytes and appends them to `to`. False at the end, where they cannot be read (errno is set), and where
/// `interrupted` (a stream of the standard library would go on waiting if the signal came just before it began).
bool read_some(int descriptor, std::string& to);

}  // namespace contexture::cli
