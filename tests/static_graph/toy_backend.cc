#include "static_graph/toy_backend.h"

#include <cstdlib>
#include <cstring>
#include <deque>
#include <stdexcept>

namespace contexture {
namespace {

uint32_t mix(uint32_t a, uint32_t b) {
  uint64_t h = (uint64_t{a} << 32 | b) + 0x9e3779b97f4a7c15ull;
  h = (h ^ (h >> 30)) * 0xbf58476d1ce4e5b9ull;
  h = (h ^ (h >> 27)) * 0x94d049bb133111ebull;
  return static_cast<uint32_t>(h >> 32);
}

template <class Range>
uint32_t fold(const Range& numbers) {
  uint32_t h = 1;
  for (const auto n : numbers) h = mix(h, static_cast<uint32_t>(n));
  return h;
}

using Row = std::vector<uint32_t>;
constexpr float kLogitScale = 0.01f;
constexpr int32_t kLogitOffset = -30000;
constexpr float kKvScale = 0.5f;

int32_t kv_offset(const ToyModel& m) {
  return m.wide_kv ? -32768 : -128;
}

// The arithmetic, a token at a time. `position` is what cos and sin stand for.
Row embed(const ToyModel& m, int32_t token) {
  Row hidden(m.hidden);
  for (uint32_t j = 0; j < m.hidden; ++j) hidden[j] = mix(static_cast<uint32_t>(token), j) & 0xffff;
  return hidden;
}
Row rope(const ToyModel& m, uint32_t position, bool is_sin) {
  Row row(m.head_dim / 2);
  for (uint32_t j = 0; j < row.size(); ++j) row[j] = mix(position, 2 * j + is_sin + 77) & 0xffff;
  return row;
}
uint32_t state_of(const Row& hidden, const Row& cos, const Row& sin) {
  return mix(fold(hidden), mix(fold(cos), fold(sin)));
}
Row kv_row(const ToyModel& m, uint32_t state, uint32_t layer, uint32_t head, bool is_v) {
  Row row(m.head_dim);
  for (uint32_t d = 0; d < m.head_dim; ++d) {
    row[d] = mix(state, ((layer * 64 + head) * 64 + d) * 2 + is_v) & (m.wide_kv ? 0xffff : 0xff);
  }
  return row;
}
/// What one attended token adds.
uint32_t seen(uint32_t state, const Row& k, const Row& v) {
  return mix(state, mix(fold(k), fold(v)));
}
Row next_hidden(const Row& hidden, uint32_t attended, uint32_t layer) {
  Row next(hidden.size());
  for (uint32_t j = 0; j < next.size(); ++j) next[j] = mix(hidden[j] + attended, layer * 1000 + j) & 0xffff;
  return next;
}
Row raw_logits(const ToyModel& m, const Row& hidden) {
  Row row(m.vocabulary);
  for (uint32_t t = 0; t < m.vocabulary; ++t) row[t] = mix(fold(hidden), t) & 0xffff;
  return row;
}

struct OracleRun {
  std::vector<std::vector<float>> logits;
  std::vector<std::vector<Row>> k, v;  // [layer * heads + head][token]
};

OracleRun run_oracle(const ToyModel& m, std::span<const int32_t> tokens) {
  OracleRun run;
  run.k.resize(m.layers * m.heads);
  run.v.resize(m.layers * m.heads);
  for (uint32_t t = 0; t < tokens.size(); ++t) {
    Row hidden = embed(m, tokens[t]);
    for (uint32_t layer = 0; layer < m.layers; ++layer) {
      const uint32_t state = state_of(hidden, rope(m, t, false), rope(m, t, true));
      uint32_t attended = 0;
      for (uint32_t head = 0; head < m.heads; ++head) {
        auto& k = run.k[layer * m.heads + head];
        auto& v = run.v[layer * m.heads + head];
        k.push_back(kv_row(m, state, layer, head, false));
        v.push_back(kv_row(m, state, layer, head, true));
        for (size_t j = 0; j < k.size(); ++j) attended += seen(state, k[j], v[j]);
      }
      hidden = next_hidden(hidden, attended, layer);
    }
    std::vector<float> logits;
    for (const uint32_t raw : raw_logits(m, hidden)) {
      logits.push_back(static_cast<float>(double{kLogitScale} * (static_cast<double>(raw) + kLogitOffset)));
    }
    run.logits.push_back(std::move(logits));
  }
  return run;
}

struct Blob {
  char magic[4];
  ToyModel model;
  uint32_t index;
};

/// First layer of a shard; the first shards get one more where they do not come out even.
uint32_t first_layer(const ToyModel& m, uint32_t shard) {
  return shard * (m.layers / m.shards) + std::min(shard, m.layers % m.shards);
}

std::string kv_name(const ToyModel& m, char kind, const char* way, uint32_t layer, uint32_t head) {
  std::string name(1, kind);
  name.append(way).append(std::to_string(layer));
  if (m.per_head) name.append("_").append(std::to_string(head));
  return name;
}

struct Graph {
  std::string name;
  uint32_t tokens;
  std::deque<std::string> names;
  std::deque<std::vector<uint32_t>> shapes;
  std::vector<cxg_tensor> inputs, outputs;
  std::vector<std::byte*> in, out;
  cxg_graph graph = {};
  cxg_timings timings = {};

  void add(bool is_output, const std::string& tensor, uint32_t type, const std::vector<uint32_t>& shape,
           float scale = 0, int32_t offset = 0) {
    auto& list = is_output ? outputs : inputs;
    const auto& d = shapes.emplace_back(shape);
    const auto id = static_cast<uint32_t>(inputs.size() + outputs.size());
    list.push_back(
        {id, names.emplace_back(tensor).c_str(), type, static_cast<uint32_t>(d.size()), d.data(), scale, offset});
  }
  std::byte* find(const std::string& tensor) const {
    for (size_t i = 0; i < inputs.size(); ++i) {
      if (inputs[i].name == tensor) return in[i];
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      if (outputs[i].name == tensor) return out[i];
    }
    return nullptr;
  }
};

struct Context {
  ToyModel model;
  uint32_t index, first, last;  // layers [first, last)
  std::deque<Graph> graphs;

  void make(const std::string& name, uint32_t a);
  void execute(Graph& graph) const;
};

Context& of(cxg_context* context) {
  return *reinterpret_cast<Context*>(context);
}
const Context& of(const cxg_context* context) {
  return *reinterpret_cast<const Context*>(context);
}

void Context::make(const std::string& name, uint32_t a) {
  const ToyModel& m = model;
  Graph& g = graphs.emplace_back();
  g.name = name;
  g.tokens = a;
  const bool is_last = index + 1 == m.shards;
  const float hidden_scale = m.fault == 1 && is_last ? 0.25f : 0.125f;
  if (index == 0) {
    g.add(false, "tokens", CXG_INT_32, {1, a});
    if (a < m.context) g.add(false, "input_pos", CXG_INT_32, {1, a});
  } else {
    g.add(false, "hidden_in", CXG_UFIXED_16, {1, a, m.hidden}, hidden_scale, -5);
    g.add(false, "rope_cos_in", CXG_UFIXED_16, {a, m.head_dim / 2}, 0.001f, -32768);
    g.add(false, "rope_sin_in", CXG_UFIXED_16, {a, m.head_dim / 2}, 0.001f, -32768);
  }
  for (const bool is_output : {false, true}) {
    const uint32_t columns = is_output ? a : m.context - a;
    for (uint32_t layer = first; layer < last && columns > 0; ++layer) {
      if (m.fault == 2 && layer == 1) continue;
      const uint32_t type = m.wide_kv ? CXG_UFIXED_16 : CXG_UFIXED_8;
      const char* const way = is_output ? "_out_" : "_in_";
      for (uint32_t head = 0; head < (m.per_head ? m.heads : 1); ++head) {
        const auto k =
            m.per_head ? std::vector{1u, m.head_dim, columns} : std::vector{1u, m.heads, m.head_dim, columns};
        const auto v =
            m.per_head ? std::vector{1u, columns, m.head_dim} : std::vector{1u, m.heads, columns, m.head_dim};
        g.add(is_output, kv_name(m, 'v', way, layer, head), type, v, kKvScale, kv_offset(m));
        g.add(is_output, kv_name(m, 'k', way, layer, head), type, k, kKvScale, kv_offset(m));
      }
    }
    if (!is_output) g.add(false, "atten_mask", CXG_UFIXED_16, {1, 1, a, m.context}, 255.0f / 65535, -65535);
  }
  if (is_last) {
    g.add(true, "logits", CXG_UFIXED_16, {1, a, m.vocabulary}, kLogitScale, kLogitOffset);
  } else {
    g.add(true, "hidden_out", CXG_UFIXED_16, {1, a, m.hidden}, 0.125f, -5);
  }
  if (index == 0 && m.shards > 1) {
    g.add(true, "rope_cos_out", CXG_UFIXED_16, {a, m.head_dim / 2}, 0.001f, -32768);
    g.add(true, "rope_sin_out", CXG_UFIXED_16, {a, m.head_dim / 2}, 0.001f, -32768);
  }
  g.in.resize(g.inputs.size());
  g.out.resize(g.outputs.size());
  g.graph = {g.name.c_str(), static_cast<uint32_t>(g.inputs.size()), g.inputs.data(),
             static_cast<uint32_t>(g.outputs.size()), g.outputs.data()};
}

void Context::execute(Graph& g) const {
  const ToyModel& m = model;
  const uint32_t a = g.tokens, c = m.context, window = c - a, d = m.head_dim, half = d / 2;
  const auto u16 = [&](const std::string& name) { return reinterpret_cast<uint16_t*>(g.find(name)); };
  const auto kv_get = [&](const std::byte* p, size_t i) -> uint32_t {
    return m.wide_kv ? reinterpret_cast<const uint16_t*>(p)[i] : static_cast<uint32_t>(p[i]);
  };
  const auto kv_put = [&](std::byte* p, size_t i, uint32_t x) {
    if (m.wide_kv) {
      reinterpret_cast<uint16_t*>(p)[i] = static_cast<uint16_t>(x);
    } else {
      p[i] = static_cast<std::byte>(x);
    }
  };
  const auto tensor = [&](char kind, const char* way, uint32_t layer, uint32_t head) {
    return g.find(kv_name(m, kind, way, layer, head));
  };

  std::vector<Row> hidden(a), cos(a), sin(a);
  for (uint32_t i = 0; i < a; ++i) {
    if (index == 0) {
      const auto* const positions = reinterpret_cast<const int32_t*>(g.find("input_pos"));
      const uint32_t position = positions ? static_cast<uint32_t>(positions[i]) : i;
      hidden[i] = embed(m, reinterpret_cast<const int32_t*>(g.find("tokens"))[i]);
      cos[i] = rope(m, position, false);
      sin[i] = rope(m, position, true);
    } else {
      const uint16_t* const h = u16("hidden_in") + i * m.hidden;
      hidden[i].assign(h, h + m.hidden);
      cos[i].assign(u16("rope_cos_in") + i * half, u16("rope_cos_in") + (i + 1) * half);
      sin[i].assign(u16("rope_sin_in") + i * half, u16("rope_sin_in") + (i + 1) * half);
    }
  }
  for (uint32_t layer = first; layer < last; ++layer) {
    std::vector<uint32_t> states(a), attended(a);
    for (uint32_t i = 0; i < a; ++i) states[i] = state_of(hidden[i], cos[i], sin[i]);
    for (uint32_t head = 0; head < m.heads; ++head) {
      const uint32_t inner = m.per_head ? 0 : head;
      std::vector<Row> k(c), v(c);
      const std::byte* const k_in = tensor('k', "_in_", layer, head);
      const std::byte* const v_in = tensor('v', "_in_", layer, head);
      std::byte* const k_out = tensor('k', "_out_", layer, head);
      std::byte* const v_out = tensor('v', "_out_", layer, head);
      const uint16_t* const mask = u16("atten_mask");
      for (uint32_t j = 0; j < window; ++j) {
        k[j].resize(d);
        v[j].resize(d);
        for (uint32_t x = 0; x < d; ++x) {
          k[j][x] = kv_get(k_in, (inner * d + x) * window + j);
          v[j][x] = kv_get(v_in, (inner * window + j) * d + x);
        }
      }
      for (uint32_t i = 0; i < a; ++i) {
        k[window + i] = kv_row(m, states[i], layer, head, false);
        v[window + i] = kv_row(m, states[i], layer, head, true);
        for (uint32_t x = 0; x < d; ++x) {
          kv_put(k_out, (inner * d + x) * a + i, k[window + i][x]);
          kv_put(v_out, (inner * a + i) * d + x, v[window + i][x]);
        }
      }
      for (uint32_t i = 0; i < a; ++i) {
        for (uint32_t j = 0; j < c; ++j) {
          if (mask[i * c + j] == 65535) attended[i] += seen(states[i], k[j], v[j]);
        }
      }
    }
    for (uint32_t i = 0; i < a; ++i) hidden[i] = next_hidden(hidden[i], attended[i], layer);
  }
  for (uint32_t i = 0; i < a; ++i) {
    const bool is_last = index + 1 == m.shards;
    const Row row = is_last ? raw_logits(m, hidden[i]) : hidden[i];
    uint16_t* const to = u16(is_last ? "logits" : "hidden_out") + i * row.size();
    for (size_t j = 0; j < row.size(); ++j) to[j] = static_cast<uint16_t>(row[j]);
    if (index > 0 || m.shards == 1) continue;
    for (uint32_t j = 0; j < half; ++j) {
      u16("rope_cos_out")[i * half + j] = static_cast<uint16_t>(cos[i][j]);
      u16("rope_sin_out")[i * half + j] = static_cast<uint16_t>(sin[i][j]);
    }
  }
  ++g.timings.executions;
}

int refuse(cxg_error* error, const char* text) {
  std::strncpy(error->text, text, sizeof(error->text) - 1);
  return 1;
}

constexpr cxg_backend kToy = {
    .version = CXG_VERSION,
    .name = "toy",
    .build = "1",
    .alignment = 1,
    .open_device =
        [](const cxg_config*, cxg_device** device, cxg_error*) {
          static char nothing;
          *device = reinterpret_cast<cxg_device*>(&nothing);
          return 0;
        },
    .close_device = [](cxg_device*) {},
    .allocate =
        [](cxg_device*, uint64_t bytes, void** block, cxg_error*) {
          *block = std::malloc(bytes);
          return 0;
        },
    .release = [](cxg_device*, void* block) { std::free(block); },
    .create_context =
        [](cxg_device*, const void* bytes, uint64_t size, cxg_context** context, cxg_error* error) {
          Blob blob;
          if (size != sizeof(blob)) return refuse(error, "no toy");
          std::memcpy(&blob, bytes, size);
          const ToyModel& m = blob.model;
          auto* const made = new Context{m, blob.index, first_layer(m, blob.index), first_layer(m, blob.index + 1), {}};
          if (m.has_decode) made->make("kv_forward", 1);
          if (m.has_prefill) made->make("prefill_forward", m.chunk);
          *context = reinterpret_cast<cxg_context*>(made);
          return 0;
        },
    .free_context = [](cxg_context* context) { delete &of(context); },
    .graph_count = [](const cxg_context* context) { return static_cast<uint32_t>(of(context).graphs.size()); },
    .graph = [](const cxg_context* context, uint32_t index) { return &of(context).graphs[index].graph; },
    .register_memory =
        [](cxg_context*, const cxg_view* view, cxg_memory** memory, cxg_error*) {
          *memory = reinterpret_cast<cxg_memory*>(static_cast<std::byte*>(view->block) + view->offset);
          return 0;
        },
    .deregister_memory = [](cxg_context*, cxg_memory*) {},
    .bind =
        [](cxg_context* context, uint32_t graph, uint32_t direction, uint32_t tensor, const cxg_buffer* buffer,
           cxg_error*) {
          Graph& g = of(context).graphs[graph];
          (direction == CXG_INPUT ? g.in : g.out)[tensor] =
              buffer->memory ? reinterpret_cast<std::byte*>(buffer->memory) : static_cast<std::byte*>(buffer->data);
          return 0;
        },
    .execute =
        [](cxg_context* context, uint32_t graph, cxg_error*) {
          of(context).execute(of(context).graphs[graph]);
          return 0;
        },
    .timings =
        [](const cxg_context* context, uint32_t graph, cxg_timings* timings, cxg_error*) {
          *timings = of(context).graphs[graph].timings;
          return 0;
        },
};

}  // namespace

std::vector<std::byte> ToyModel::shard(uint32_t index) const {
  Blob blob = {.magic = {'t', 'o', 'y', '\n'}, .model = *this, .index = index};
  std::vector<std::byte> bytes(sizeof(blob));
  std::memcpy(bytes.data(), &blob, sizeof(blob));
  return bytes;
}

std::vector<std::vector<float>> toy_logits(const ToyModel& model, std::span<const int32_t> tokens) {
  return run_oracle(model, tokens).logits;
}

std::vector<float> toy_kv(const ToyModel& model, std::span<const int32_t> tokens, bool is_v, uint32_t layer,
                          uint32_t head) {
  const OracleRun run = run_oracle(model, tokens);
  std::vector<float> rows;
  for (const Row& row : (is_v ? run.v : run.k)[layer * model.heads + head]) {
    for (const uint32_t raw : row)
      rows.push_back(kKvScale * (static_cast<float>(raw) + static_cast<float>(kv_offset(model))));
  }
  return rows;
}

const cxg_backend& toy_backend() {
  return kToy;
}

}  // namespace contexture
