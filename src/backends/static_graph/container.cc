#include "backends/static_graph/container.h"

#include <xxhash.h>

#include <bit>
#include <cstring>
#include <memory>

#include "backends/static_graph/constants.h"
#include "base/atomic_file.h"
#include "base/error.h"

namespace contexture {
namespace {

static_assert(std::endian::native == std::endian::little);

constexpr char kMagic[8] = "CXGRAPH";
constexpr size_t kHeaderBytes = 64, kChecksumBytes = 8, kAlignment = 128;

size_t aligned(size_t bytes) {
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

class DescriptionWriter {
 public:
  std::vector<std::byte> bytes;

  template <class T>
  void number(T value) {
    static_assert(std::is_arithmetic_v<T>);
    const auto* at = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), at, at + sizeof(T));
  }
  void text(const std::string& value) {
    number(static_cast<uint32_t>(value.size()));
    const auto* at = reinterpret_cast<const std::byte*>(value.data());
    bytes.insert(bytes.end(), at, at + value.size());
  }
  void list(const std::vector<uint32_t>& values) {
    number(static_cast<uint32_t>(values.size()));
    for (const uint32_t v : values) number(v);
  }
  void encoding(const Encoding& value) {
    number(value.scale);
    number(value.zero_point);
  }
};

std::vector<std::byte> describe(const ShardProgram& program) {
  DescriptionWriter w;
  w.number(static_cast<uint32_t>(program.constants.size()));
  size_t offset = 0;
  for (const GraphConstant& c : program.constants) {
    w.text(c.name);
    w.number(static_cast<uint8_t>(c.kind));
    w.number(static_cast<uint64_t>(c.rows));
    w.number(static_cast<uint64_t>(c.columns));
    w.encoding(c.encoding);
    w.number(static_cast<uint32_t>(c.block));
    w.number(static_cast<uint64_t>(offset));
    w.number(static_cast<uint64_t>(constant_bytes(c)));
    offset = aligned(offset + constant_bytes(c));
  }
  w.number(static_cast<uint32_t>(program.graphs.size()));
  for (const Graph& g : program.graphs) {
    w.text(g.name);
    w.number(static_cast<uint32_t>(g.tensors.size()));
    for (const GraphTensor& t : g.tensors) {
      w.text(t.name);
      w.number(static_cast<uint8_t>(t.type));
      w.list(t.dims);
      w.encoding(t.encoding);
    }
    w.number(static_cast<uint32_t>(g.nodes.size()));
    for (const GraphNode& n : g.nodes) {
      w.number(static_cast<uint8_t>(n.op));
      w.list(n.inputs);
      w.list(n.constants);
      w.number(n.output);
      w.number(n.factor);
      w.number(n.epsilon);
      for (const uint32_t v : {n.axis, n.begin, n.width, n.head_dim}) w.number(v);
      w.number(static_cast<uint8_t>(n.style));
      w.list(n.view);
      w.list(n.order);
    }
    w.list(g.inputs);
    w.list(g.outputs);
  }
  return std::move(w.bytes);
}

class DescriptionReader {
 public:
  DescriptionReader(std::span<const std::byte> bytes, const std::string& name) : rest_(bytes), name_(name) {}

  template <class T>
  T number() {
    if (rest_.size() < sizeof(T)) cut_off();
    T value;
    std::memcpy(&value, rest_.data(), sizeof(T));
    rest_ = rest_.subspan(sizeof(T));
    return value;
  }
  /// A list's length: no more than its elements, of `least` bytes each, fit in what is left.
  size_t count(size_t least) {
    const size_t n = number<uint32_t>();
    if (n > rest_.size() / least) cut_off();
    return n;
  }
  std::string text() {
    const size_t n = count(1);
    std::string value(reinterpret_cast<const char*>(rest_.data()), n);
    rest_ = rest_.subspan(n);
    if (value.find('\0') != std::string::npos) fail("{}: a name has a 0 in it; the file is damaged", name_);
    return value;
  }
  std::vector<uint32_t> list() {
    std::vector<uint32_t> values(count(sizeof(uint32_t)));
    for (uint32_t& v : values) v = number<uint32_t>();
    return values;
  }
  Encoding encoding() {
    const float scale = number<float>();
    return {scale, number<int32_t>()};
  }
  bool empty() const { return rest_.empty(); }

 private:
  [[noreturn]] void cut_off() const { fail("{}: its description is cut off; the file is damaged", name_); }

  std::span<const std::byte> rest_;
  const std::string& name_;
};

GraphConstant read_constant(DescriptionReader& r, std::span<const std::byte> data, const std::string& name) {
  GraphConstant c;
  c.name = r.text();
  c.kind = static_cast<ConstantKind>(r.number<uint8_t>());
  c.rows = r.number<uint64_t>();
  c.columns = r.number<uint64_t>();
  c.encoding = r.encoding();
  c.block = r.number<uint32_t>();
  const uint64_t offset = r.number<uint64_t>(), bytes = r.number<uint64_t>();
  if (offset % kAlignment != 0 || offset > data.size() || bytes > data.size() - offset) {
    fail("{}: constant {} lies outside of the file; it is damaged", name, printable(c.name));
  }
  c.data = data.subspan(offset, bytes);
  return c;
}

Graph read_graph(DescriptionReader& r) {
  Graph g;
  g.name = r.text();
  g.tensors.resize(r.count(17));
  for (GraphTensor& t : g.tensors) {
    t.name = r.text();
    t.type = static_cast<NumberType>(r.number<uint8_t>());
    t.dims = r.list();
    t.encoding = r.encoding();
  }
  g.nodes.resize(r.count(50));
  for (GraphNode& n : g.nodes) {
    n.op = static_cast<Operator>(r.number<uint8_t>());
    n.inputs = r.list();
    n.constants = r.list();
    n.output = r.number<uint32_t>();
    n.factor = r.number<double>();
    n.epsilon = r.number<double>();
    for (uint32_t* v : {&n.axis, &n.begin, &n.width, &n.head_dim}) *v = r.number<uint32_t>();
    n.style = r.number<uint8_t>() == 0 ? RopeStyle::interleaved : RopeStyle::halves;
    n.view = r.list();
    n.order = r.list();
  }
  g.inputs = r.list();
  g.outputs = r.list();
  return g;
}

/// The file as it is written, with the checksum of what went out.
class ChecksummedFile {
 public:
  explicit ChecksummedFile(const std::string& path) : file_(path) { XXH3_64bits_reset(state_.get()); }

  void write(std::span<const std::byte> bytes) {
    file_.write(bytes);
    XXH3_64bits_update(state_.get(), bytes.data(), bytes.size());
    position_ += bytes.size();
  }
  void pad() { write(std::vector<std::byte>(aligned(position_) - position_)); }
  void publish() {
    const uint64_t checksum = XXH3_64bits_digest(state_.get());
    file_.write(std::as_bytes(std::span(&checksum, 1)));
    file_.publish();
  }
  size_t position() const { return position_; }

 private:
  struct Free {
    void operator()(XXH3_state_t* state) const { XXH3_freeState(state); }
  };
  AtomicFile file_;
  std::unique_ptr<XXH3_state_t, Free> state_{XXH3_createState()};
  size_t position_ = 0;
};

}  // namespace

void write_container(const std::string& path, const ShardProgram& program, const ConstantProducer& produce) {
  check(program);
  const std::vector<std::byte> description = describe(program);
  const size_t data_offset = aligned(kHeaderBytes + description.size());
  size_t data_bytes = 0;
  for (const GraphConstant& c : program.constants) data_bytes = aligned(data_bytes + constant_bytes(c));

  DescriptionWriter header;
  for (const char c : kMagic) header.number(c);
  header.number(kContainerVersion);
  header.number(uint32_t{0});
  header.number(static_cast<uint64_t>(description.size()));
  header.number(static_cast<uint64_t>(data_offset));
  header.number(static_cast<uint64_t>(data_offset + data_bytes + kChecksumBytes));
  header.bytes.resize(kHeaderBytes);

  ChecksummedFile file(path);
  file.write(header.bytes);
  file.write(description);
  file.pad();
  for (size_t i = 0; i < program.constants.size(); ++i) {
    const size_t begin = file.position();
    produce(i, [&](std::span<const std::byte> piece) { file.write(piece); });
    if (file.position() - begin != constant_bytes(program.constants[i])) {
      fail("{}: constant {} has {} bytes and should have {}", path, program.constants[i].name, file.position() - begin,
           constant_bytes(program.constants[i]));
    }
    file.pad();
  }
  file.publish();
}

ShardProgram read_container(std::span<const std::byte> bytes, const std::string& name) {
  const std::string shown = printable(name, 400);
  const auto refuse = [&](std::string_view what) { fail("{}: {}", shown, what); };
  if (bytes.size() < kHeaderBytes + kChecksumBytes || std::memcmp(bytes.data(), kMagic, sizeof kMagic) != 0) {
    refuse("not a compiled shard; `contexture compile` makes them");
  }
  DescriptionReader header(bytes.subspan(8, kHeaderBytes - 8), shown);
  const uint32_t version = header.number<uint32_t>();
  if (version != kContainerVersion) {
    fail("{}: of version {}, this program reads {}; compile the model again", shown, version, kContainerVersion);
  }
  (void)header.number<uint32_t>();
  const uint64_t description_bytes = header.number<uint64_t>(), data_offset = header.number<uint64_t>();
  const uint64_t file_bytes = header.number<uint64_t>();
  if (file_bytes != bytes.size()) {
    fail("{}: has {} bytes, its header says {}; it is cut off", shown, bytes.size(), file_bytes);
  }
  const size_t end = bytes.size() - kChecksumBytes;
  uint64_t checksum;
  std::memcpy(&checksum, bytes.data() + end, sizeof checksum);
  if (XXH3_64bits(bytes.data(), end) != checksum) refuse("its checksum is wrong; the file is damaged");
  if (data_offset % kAlignment != 0 || data_offset > end || description_bytes > data_offset ||
      data_offset - description_bytes < kHeaderBytes) {
    refuse("its header contradicts itself; the file is damaged");
  }

  DescriptionReader r(bytes.subspan(kHeaderBytes, description_bytes), shown);
  const std::span<const std::byte> data = bytes.subspan(data_offset, end - data_offset);
  ShardProgram program;
  const size_t constants = r.count(49);
  for (size_t i = 0; i < constants; ++i) program.constants.push_back(read_constant(r, data, shown));
  const size_t graphs = r.count(16);
  for (size_t i = 0; i < graphs; ++i) program.graphs.push_back(read_graph(r));
  if (!r.empty()) refuse("its description is too long; the file is damaged");
  try {
    check(program);
    for (const GraphConstant& c : program.constants) {
      if (c.data.size() != constant_bytes(c)) fail("constant {} has the wrong size", printable(c.name));
    }
  } catch (const Error& e) {
    fail("{}: {}; the file is damaged", shown, e.what());
  }
  return program;
}

}  // namespace contexture
