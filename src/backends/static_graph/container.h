#pragma once

#include <cstddef>
#include <functional>
#include <span>
#include <string>

#include "backends/static_graph/graph.h"

namespace contexture {

/// forward_i.bin: a shard's graphs and their constants, to be mapped. Little-endian.
///
///   0   magic              "CXGRAPH" and a 0
///   8   version            u32, 1
///   12  0                  u32
///   16  description bytes  u64
///   24  data offset        u64, a multiple of 128
///   32  file bytes         u64
///   40  0                  (24)
///   64  description        constants, graphs, in the order of their structs' fields (graph.h); a list or a text
///                          has its length in front (u32); a constant has its offset from the data's and its bytes
///                          (u64) at its end
///   …   data               each constant at a multiple of 128, zeros between
///   -8  checksum           u64: XXH3-64 of all bytes before it
constexpr uint32_t kContainerVersion = 1;

/// Hands a constant's bytes to `write`, in as many pieces as it likes.
using ConstantSink = std::function<void(std::span<const std::byte> piece)>;
using ConstantProducer = std::function<void(size_t constant, const ConstantSink& write)>;

/// Writes a shard; its constants' data is made as it is written. The file appears when it is whole and on the disk.
/// Throws Error: the disk is full, a constant's bytes are not as many as they should be.
void write_container(const std::string& path, const ShardProgram& program, const ConstantProducer& produce);

/// Reads a shard whose data stays where it is: `bytes` outlive it and begin at a multiple of 64. `name`: of the file,
/// for errors. Throws Error on anything that does not hold together; a graph that it returns has been checked.
ShardProgram read_container(std::span<const std::byte> bytes, const std::string& name);

}  // namespace contexture
