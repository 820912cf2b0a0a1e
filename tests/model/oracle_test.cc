#include "model/oracle.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <memory>

#include "files/model_file.h"
#include "support/random_model.h"

// The oracle has to be right before anything is held against it: where two families come to the same thing it must say
// the same, and what tells them apart must show.

namespace contexture {
namespace {

constexpr double kSame = 1e-9, kFelt = 1e-3;

/// A random model in memory, to be changed.
class Editable {
 public:
  explicit Editable(const RandomModel& shape) {
    write_random_model(shape, file_.path());
    model = open_model(file_.path());
    tensors = model.tensors;
  }

  void remove(const std::string& ending) {
    std::erase_if(tensors, [&](const StoredTensor& t) { return t.name.ends_with(ending); });
  }

  /// Every value of the f32 tensors whose name ends so.
  void change(const std::string& ending, const std::function<float(float)>& f) {
    for (StoredTensor& t : tensors) {
      if (!t.name.ends_with(ending)) continue;
      std::vector<float> values = floats(t);
      std::transform(values.begin(), values.end(), values.begin(), f);
      t.data = keep(values);
    }
  }

  /// Adds rows first .. first + count of the tensors whose name ends so as tensors of another name and shape.
  void cut(const std::string& ending, size_t first, size_t count, const std::string& name) {
    for (const StoredTensor& t : std::vector(tensors)) {
      if (!t.name.ends_with(ending)) continue;
      const auto columns = static_cast<size_t>(t.shape.back());
      const std::vector<float> all = floats(t);
      const std::vector<float> some(all.begin() + static_cast<ptrdiff_t>(first * columns),
                                    all.begin() + static_cast<ptrdiff_t>((first + count) * columns));
      tensors.push_back({.name = t.name.substr(0, t.name.size() - ending.size()) + name,
                         .format = Format::f32,
                         .shape = {static_cast<int64_t>(count), t.shape.back()},
                         .data = keep(some)});
    }
  }

  void become_llama() {
    Metadata renamed;
    const std::string family = model.metadata.get_string("general.architecture");
    for (const auto& [key, value] : model.metadata.entries()) {
      renamed.set(key.starts_with(family + ".") ? "llama" + key.substr(family.size()) : key, value);
    }
    renamed.set_string("general.architecture", "llama");
    model.metadata = std::move(renamed);
  }

  std::vector<double> logits(size_t count = 24) const {
    ModelFile edited;
    edited.metadata = model.metadata;
    for (const StoredTensor& t : tensors) edited.add(t);
    std::vector<int32_t> tokens(count);
    for (size_t i = 0; i < count; ++i) tokens[i] = static_cast<int32_t>(i * 37 % 80);
    return oracle_logits(edited, tokens);
  }

  ModelFile model;
  std::vector<StoredTensor> tensors;

 private:
  static std::vector<float> floats(const StoredTensor& t) {
    const auto* first = reinterpret_cast<const float*>(t.data.data());
    return {first, first + t.data.size() / sizeof(float)};
  }

  std::span<const std::byte> keep(std::vector<float> values) {
    kept_.push_back(std::make_unique<std::vector<float>>(std::move(values)));
    return std::as_bytes(std::span(*kept_.back()));
  }

  TemporaryFile file_;
  std::vector<std::unique_ptr<std::vector<float>>> kept_;
};

double apart(const std::vector<double>& a, const std::vector<double>& b) {
  if (a.size() != b.size()) return INFINITY;
  double most = 0;
  for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
  return most;
}

std::vector<double> logits_of(const RandomModel& shape) {
  return Editable(shape).logits();
}

TEST(Oracle, AWindowIsFeltOnceTheContextOutgrowsIt) {
  for (const std::string family : {"llama", "phi3", "gemma2", "gemma3"}) {
    const std::vector<double> all = logits_of({.family = family});
    EXPECT_EQ(apart(all, logits_of({.family = family, .window = 24})), 0) << family;
    const std::vector<double> windowed = logits_of({.family = family, .window = 23});
    EXPECT_GT(apart(all, windowed), kFelt) << family;
    EXPECT_TRUE(std::equal(all.begin(), all.begin() + 23 * 80, windowed.begin())) << family << ": felt too early";
  }
}

TEST(Oracle, Qwen2WithoutBiasesIsALlamaOfHalves) {
  Editable qwen({.family = "qwen2"});
  const std::vector<double> biased = qwen.logits();
  qwen.change(".bias", [](float) { return 0.f; });
  const std::vector<double> unbiased = qwen.logits();
  EXPECT_GT(apart(biased, unbiased), kFelt);
  qwen.become_llama();
  qwen.remove(".bias");
  EXPECT_GT(apart(unbiased, qwen.logits()), kFelt) << "neighbouring pairs";
  qwen.model.metadata.set_string("llama.rope.style", "halves");
  EXPECT_EQ(apart(unbiased, qwen.logits()), 0);
}

TEST(Oracle, HeadNormsUndoTheSizeOfProjections) {
  for (const std::string family : {"qwen3", "gemma3"}) {
    Editable model({.family = family, .epsilon = 1e-12f});
    const std::vector<double> before = model.logits();
    model.change("attn_q.weight", [](float x) { return 64 * x; });
    model.change("attn_k.weight", [](float x) { return x / 4; });
    EXPECT_LT(apart(before, model.logits()), kSame) << family;
    model.change("attn_k_norm.weight", [](float x) { return 2 * x; });
    EXPECT_GT(apart(before, model.logits()), kFelt) << family;
  }
}

TEST(Oracle, EqualExpertsAreOneDenseFeedForward) {
  Editable model({.experts = 3, .experts_used = 2});
  const std::vector<double> different = model.logits();
  for (size_t e = 0; e < 3; ++e) {
    for (const std::string name : {"ffn_gate", "ffn_up", "ffn_down"}) {
      const size_t rows = name == "ffn_down" ? 64 : 96;
      model.cut(name + "_exps.weight", e * rows, rows, name + "." + std::to_string(e) + ".weight");
    }
  }
  model.remove("_exps.weight");
  EXPECT_EQ(apart(different, model.logits()), 0) << "a tensor an expert";

  for (const std::string name : {"ffn_gate", "ffn_up", "ffn_down"}) {
    for (const std::string e : {".1.weight", ".2.weight"}) model.remove(name + e);
    const size_t rows = name == "ffn_down" ? 64 : 96;
    model.cut(name + ".0.weight", 0, rows, name + ".1.weight");
    model.cut(name + ".0.weight", 0, rows, name + ".2.weight");
    model.cut(name + ".0.weight", 0, rows, name + ".weight");
  }
  const std::vector<double> equal = model.logits();
  EXPECT_GT(apart(different, equal), kFelt);
  model.model.metadata.set_int("llama.expert_count", 0);
  EXPECT_LT(apart(equal, model.logits()), kSame);
}

TEST(Oracle, GraniteWithScalesOfOneIsALlama) {
  Editable granite({.family = "granite"});
  const std::vector<double> scaled = granite.logits();
  for (const char* key : {"granite.embedding_scale", "granite.residual_scale", "granite.logit_scale"}) {
    Editable other({.family = "granite"});
    other.model.metadata.set_float(key, 1);
    EXPECT_GT(apart(scaled, other.logits()), kFelt) << key;
    granite.model.metadata.set_float(key, 1);
  }
  const std::vector<double> plain = granite.logits();
  granite.model.metadata.set_float("granite.attention.scale", 0.25);  // 1 / sqrt(16)
  EXPECT_EQ(apart(plain, granite.logits()), 0);
  granite.become_llama();
  EXPECT_EQ(apart(plain, granite.logits()), 0);
}

TEST(Oracle, SmolLm3LeavesOutTheRotationOfEveryFourthLayer) {
  for (const size_t layers : {3, 4}) {
    Editable model({.family = "smollm3", .layers = layers});
    const std::vector<double> before = model.logits();
    model.become_llama();
    if (layers == 3) {
      EXPECT_EQ(apart(before, model.logits()), 0);
    } else {
      EXPECT_GT(apart(before, model.logits()), kFelt);
    }
  }
}

TEST(Oracle, Phi3IsALlamaInJoinedTensors) {
  Editable phi({.family = "phi3", .rope_scaling = "longrope", .original_context = 4095});
  const std::vector<double> varied = phi.logits();
  phi.change("rope_factors_long.weight", [](float) { return 8.f; });
  const std::vector<double> before = phi.logits();
  EXPECT_GT(apart(varied, before), kFelt);
  phi.cut("attn_qkv.weight", 0, 64, "attn_q.weight");
  phi.cut("attn_qkv.weight", 64, 32, "attn_k.weight");
  phi.cut("attn_qkv.weight", 96, 32, "attn_v.weight");
  phi.cut("ffn_up.weight", 0, 96, "ffn_gate.weight");
  phi.cut("ffn_up.weight", 96, 96, "up");
  phi.remove("ffn_up.weight");
  phi.cut("up", 0, 96, "ffn_up.weight");
  // Every channel rotates, so what cosines and sines are multiplied by comes to the same on Q and K themselves.
  phi.change("attn_q.weight", [](float x) { return 1.25f * x; });
  phi.change("attn_k.weight", [](float x) { return 1.25f * x; });
  phi.become_llama();
  phi.model.metadata.set_string("llama.rope.style", "halves");
  phi.model.metadata.set_string("llama.rope.scaling.type", "linear");
  phi.model.metadata.set_float("llama.rope.scaling.factor", 8);
  EXPECT_LT(apart(before, phi.logits()), 1e-6) << "1.25 x is rounded to float";
}

TEST(Oracle, Phi3TakesShortFactorsWithinTheOriginalContext) {
  for (const size_t original : {4095, 4096}) {
    Editable phi({.family = "phi3", .rope_scaling = "longrope", .original_context = original});
    const std::vector<double> before = phi.logits();
    phi.change(original == 4096 ? "factors_long.weight" : "factors_short.weight", [](float) { return 77.f; });
    EXPECT_EQ(apart(before, phi.logits()), 0);
  }
}

TEST(Oracle, SoftCapsBoundLogitsAndHighOnesAreNone) {
  Editable gemma({.family = "gemma2", .score_gain = 3, .score_cap = 1, .logit_cap = 0.5f});
  const std::vector<double> capped = gemma.logits();
  for (const double x : capped) EXPECT_LE(std::fabs(x), 0.5);
  gemma.model.metadata.set_float("gemma2.final_logit_softcapping", 0);
  std::vector<double> uncapped = gemma.logits();
  for (double& x : uncapped) x = 0.5 * std::tanh(x / 0.5);
  EXPECT_LT(apart(capped, uncapped), kSame);
  gemma.model.metadata.set_float("gemma2.attn_logit_softcapping", 1e8);
  const std::vector<double> high = gemma.logits();
  gemma.model.metadata.set_float("gemma2.attn_logit_softcapping", 0);
  EXPECT_LT(apart(high, gemma.logits()), kSame);
  EXPECT_GT(apart(capped, high), kFelt);
}

TEST(Oracle, Gemma3HasTwoRotations) {
  RandomModel shape{.family = "gemma3", .layers = 6};
  const std::vector<double> before = logits_of(shape);
  shape.rope_base_swa = 10000;
  EXPECT_EQ(apart(before, logits_of(shape)), 0) << "the base that no key names";
  shape.rope_base_swa = 1e6;
  const std::vector<double> one_base = logits_of(shape);
  EXPECT_GT(apart(before, one_base), kFelt);
  shape.window_pattern = 2;
  EXPECT_EQ(apart(one_base, logits_of(shape)), 0) << "one base, no window: all layers are alike";
  shape.rope_scaling = "linear";
  const std::vector<double> scaled = logits_of(shape);
  EXPECT_GT(apart(one_base, scaled), kFelt);
  shape.window_pattern = 7;
  EXPECT_EQ(apart(one_base, logits_of(shape)), 0) << "windowed layers are not scaled";
}

}  // namespace
}  // namespace contexture
