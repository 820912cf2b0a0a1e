// libcontexture_mpi.so: MPI's calls (Open MPI 4) as mpi_calls.h describes them.

#define OMPI_SKIP_MPICXX 1
#include <mpi.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "backends/ring/mpi/mpi_calls.h"

namespace {

using contexture::MpiCalls;

std::vector<MPI_Request> requests;  // begun and not known to be done

MPI_Request* next_request() {
  return &requests.emplace_back(MPI_REQUEST_NULL);
}

int open_mpi(int* rank, int* ranks) {
  if (const int status = MPI_Init(nullptr, nullptr); status != MPI_SUCCESS) return status;
  MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
  MPI_Comm_rank(MPI_COMM_WORLD, rank);
  MPI_Comm_size(MPI_COMM_WORLD, ranks);
  return MPI_SUCCESS;
}

int send(const void* bytes, size_t size, int to, int tag) {
  return MPI_Isend(bytes, static_cast<int>(size), MPI_BYTE, to, tag, MPI_COMM_WORLD, next_request());
}

int receive(void* bytes, size_t size, int from, int tag) {
  return MPI_Irecv(bytes, static_cast<int>(size), MPI_BYTE, from, tag, MPI_COMM_WORLD, next_request());
}

int all_gather(const void* mine, int size, void* all, const int* sizes, const int* starts) {
  return MPI_Iallgatherv(mine, size, MPI_BYTE, all, sizes, starts, MPI_BYTE, MPI_COMM_WORLD, next_request());
}

int broadcast(void* bytes, size_t size, int from) {
  return MPI_Ibcast(bytes, static_cast<int>(size), MPI_BYTE, from, MPI_COMM_WORLD, next_request());
}

int test(int* done) {
  const int status = MPI_Testall(static_cast<int>(requests.size()), requests.data(), done, MPI_STATUSES_IGNORE);
  if (status == MPI_SUCCESS && *done) requests.clear();
  return status;
}

void error_text(int status, char* text) {
  char whole[MPI_MAX_ERROR_STRING + 1] = {};
  int length = 0;
  MPI_Error_string(status, whole, &length);
  const size_t count = std::min(std::strlen(whole), MpiCalls::kErrorBytes - 1);
  std::memcpy(text, whole, count);
  text[count] = '\0';
}

void end_all() {
  std::fflush(stdout);
  MPI_Abort(MPI_COMM_WORLD, 1);
  std::_Exit(1);
}

void close_mpi() {
  MPI_Finalize();
}

}  // namespace

extern "C" __attribute__((visibility("default"))) const MpiCalls* contexture_mpi_calls(uint32_t version) {
  static const MpiCalls calls = {.version = MpiCalls::kVersion,
                                 .open = open_mpi,
                                 .send = send,
                                 .receive = receive,
                                 .all_gather = all_gather,
                                 .broadcast = broadcast,
                                 .test = test,
                                 .error_text = error_text,
                                 .end_all = end_all,
                                 .close = close_mpi};
  return version == MpiCalls::kVersion ? &calls : nullptr;
}
