#pragma once

#include <cstddef>
#include <cstdint>

namespace contexture {

/// What ranks need of MPI: the table that libcontexture_mpi.so offers, which is loaded when ranks over MPI are asked
/// for, so that nothing else links it. Calls that return int return 0, or a status that error_text explains. Those that
/// move bytes only begin: the buffers belong to MPI until test() finds that all which began are done. One thread makes
/// them.
struct MpiCalls {
  static constexpr uint32_t kVersion = 1;
  static constexpr size_t kErrorBytes = 512;

  uint32_t version;
  int (*open)(int* rank, int* ranks);
  int (*send)(const void* bytes, size_t size, int to, int tag);  // at most INT_MAX bytes, as below
  int (*receive)(void* bytes, size_t size, int from, int tag);
  /// all[starts[r], +sizes[r]) comes from rank r; (ranks) each.
  int (*all_gather)(const void* mine, int size, void* all, const int* sizes, const int* starts);
  int (*broadcast)(void* bytes, size_t size, int from);
  int (*test)(int* done);
  void (*error_text)(int status, char* text);  // (kErrorBytes), ends in 0
  void (*end_all)();                           // ends every rank's process with status 1, this one too
  void (*close)();
};

/// The one symbol of the library. Null where it does not offer this version.
using MpiEntry = const MpiCalls* (*)(uint32_t version);
inline constexpr const char* kMpiEntryName = "contexture_mpi_calls";

}  // namespace contexture
