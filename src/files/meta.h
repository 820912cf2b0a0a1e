#pragma once

#include <string>

#include "files/json_object.h"
#include "files/model_file.h"
#include "files/torch_checkpoint.h"

namespace contexture {

/// Opens a Llama as Meta, llama2.c and ExecuTorch hold one: a checkpoint of torch.save with tensors named
/// layers.N.attention.wq.weight and so on. `path` is the checkpoint, its params.json, or a folder with
/// consolidated.00.pth or, beside params.json, with one other checkpoint. Throws Error.
///
/// The model's numbers come from, in this order and each filling in what those before leave out:
///   params.json beside the checkpoint
///   the checkpoint's own entry model_args
///   where there is neither: the only other .json beside it that has the fields dim, n_layers and n_heads
/// What the tensors' shapes say (dim, layers, feed-forward, vocabulary) may be left out; where it is said it must
/// agree.
ModelFile open_meta(const std::string& path);

/// Whether a folder, or the folder of a params.json, holds such a model.
bool is_meta_folder(const std::string& path);

/// Presents a checkpoint in GGUF's vocabulary: sets metadata and adds tensors, which point into the checkpoint's bytes.
void read_meta(const TorchCheckpoint& checkpoint, const JsonObject& params, ModelFile& model);

}  // namespace contexture
