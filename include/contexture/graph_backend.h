/* What runs compiled graphs: a shared library that exports one function, contexture_graph_backend. Plain C, so that an
 * adapter for a vendor's runtime is one file in any language and compiler (docs/static_graphs.md maps each call to
 * QNN's).
 *
 *   device   the accelerator and what all shards share on it: threads, scratch memory
 *   context  one shard, made from the bytes of forward_i.bin; holds its graphs and their weights
 *   graph    fixed shapes; its inputs and outputs are bound to buffers once and stay bound
 *   memory   a view of an allocated block, registered once with one context
 *
 * Functions that can fail return 0, or anything else and one line of text in `error`. Every text is UTF-8 and ends in
 * 0. A device, its contexts and its blocks are used by one thread at a time; devices do not know of each other.
 *
 * Tensors are dense, the last dimension runs fastest. Stored numbers mean real = scale * (raw + offset), the offset
 * signed and negative as a rule: QNN's convention, and the opposite sign of a zero point.
 */

/* clang-format off: a table
 *
 * Names in a compiled model. L: layer of the whole model, H: KV head (_H is absent where all heads of a layer are one
 * tensor), A: tokens an execution, C: context, D: head_dim. The batch is 1. Each shard has the graphs
 * "prefill_forward" (A tokens), "kv_forward" (A = 1), or both.
 *
 *   inputs   tokens, input_pos          [1,A]         int32; the first shard. input_pos may be absent where A = C
 *            hidden_in                  [1,A,dim]     the other shards: hidden_out of the one before
 *            rope_cos_in, rope_sin_in   [A,D/2]       the other shards: of the first
 *            atten_mask                 [1,1,A,C]     columns [0,C-A) are cache, [C-A,C) the chunk itself; real 0 attends,
 *                                                     the least real of the encoding masks (f32: -65535)
 *            k_in_L_H, v_in_L_H         [1,D,C-A], [1,C-A,D]; all heads: k_in_L [1,Hkv,D,C-A], v_in_L [1,Hkv,C-A,D];
 *                                                     absent where A = C
 *   outputs  hidden_out                 [1,A,dim]     all but the last shard
 *            rope_cos_out, rope_sin_out [A,D/2]       the first shard, where there are others
 *            logits                     [1,A,vocabulary]  the last shard
 *            k_out_L_H, v_out_L_H       [1,D,A], [1,A,D]; all heads: k_out_L [1,Hkv,D,A], v_out_L [1,Hkv,A,D];
 *                                                     encoded as the inputs
 * clang-format on */
#ifndef CONTEXTURE_GRAPH_BACKEND_H_
#define CONTEXTURE_GRAPH_BACKEND_H_

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define CXG_VERSION 1u

/* How a tensor's numbers are stored. */
enum {
  CXG_FLOAT_32 = 1,
  CXG_INT_32 = 2,
  CXG_UFIXED_8 = 3,
  CXG_UFIXED_16 = 4,
};

typedef struct cxg_device cxg_device;
typedef struct cxg_context cxg_context;
typedef struct cxg_memory cxg_memory;

typedef struct cxg_error {
  char text[512];
} cxg_error;

typedef struct cxg_config {
  uint32_t threads;    /* of the CPU, at least 1; results do not depend on it */
  uint32_t log_level;  /* 0: quiet, 1: info, 2: debug; to stderr */
  const char* options; /* the backend's own, or "" */
} cxg_config;

typedef struct cxg_tensor {
  uint32_t id; /* unique in its graph */
  const char* name;
  uint32_t type; /* CXG_FLOAT_32... */
  uint32_t rank;
  const uint32_t* dims;
  float scale; /* of ufixed types; 0 for others */
  int32_t offset;
} cxg_tensor;

/* Belongs to its context and lives as long. */
typedef struct cxg_graph {
  const char* name;
  uint32_t input_count;
  const cxg_tensor* inputs;
  uint32_t output_count;
  const cxg_tensor* outputs;
} cxg_graph;

/* A tensor's place in a block: the same place may be registered twice, with different shapes. */
typedef struct cxg_view {
  void* block; /* as allocate returned it */
  uint64_t offset;
  uint32_t type;
  uint32_t rank;
  const uint32_t* dims;
} cxg_view;

/* Where a tensor lies: registered memory, or, where that is null, plain memory that the backend may have to copy. */
typedef struct cxg_buffer {
  cxg_memory* memory;
  void* data;
  uint64_t bytes; /* that are there at `data`; at least the tensor's */
} cxg_buffer;

typedef struct cxg_timings {
  uint64_t executions;
  uint64_t last_nanoseconds;
  uint64_t total_nanoseconds;
} cxg_timings;

enum { CXG_INPUT = 0, CXG_OUTPUT = 1 };

typedef struct cxg_backend {
  uint32_t version;   /* CXG_VERSION */
  const char* name;   /* "reference" */
  const char* build;  /* the version of the backend and of what it drives */
  uint32_t alignment; /* of every bound address in bytes; besides, each is aligned to its numbers' size */

  int (*open_device)(const cxg_config* config, cxg_device** device, cxg_error* error);
  void (*close_device)(cxg_device* device); /* after all of its contexts and blocks */

  /* A block of memory that the accelerator can share. */
  int (*allocate)(cxg_device* device, uint64_t bytes, void** block, cxg_error* error);
  void (*release)(cxg_device* device, void* block); /* after all of its views */

  /* `bytes` stay where they are and unchanged as long as the context lives. They may come from a stranger. */
  int (*create_context)(cxg_device* device, const void* bytes, uint64_t size, cxg_context** context, cxg_error* error);
  void (*free_context)(cxg_context* context);
  uint32_t (*graph_count)(const cxg_context* context);
  const cxg_graph* (*graph)(const cxg_context* context, uint32_t index);

  int (*register_memory)(cxg_context* context, const cxg_view* view, cxg_memory** memory, cxg_error* error);
  void (*deregister_memory)(cxg_context* context, cxg_memory* memory); /* when it is bound nowhere any more */

  /* Binds input or output `tensor` (its place in the list) until it is bound again. Type and shape of a view must be
   * the tensor's. */
  int (*bind)(cxg_context* context, uint32_t graph, uint32_t direction, uint32_t tensor, const cxg_buffer* buffer,
              cxg_error* error);
  /* All tensors must be bound, and no output may overlap another or an input. Returns when the outputs are written. */
  int (*execute)(cxg_context* context, uint32_t graph, cxg_error* error);
  int (*timings)(const cxg_context* context, uint32_t graph, cxg_timings* timings, cxg_error* error);
} cxg_backend;

/* The one symbol of the library. Null where this version of the table is not offered. */
typedef const cxg_backend* (*cxg_entry)(uint32_t version);
#define CXG_ENTRY_NAME "contexture_graph_backend"

#ifdef __cplusplus
}
#endif

#endif
