#include "files/computing_fields.h"

#include <algorithm>

#include "base/error.h"
#include "base/json.h"

namespace contexture {

bool has_word(std::string_view words, std::string_view word) {
  while (!words.empty()) {
    const size_t end = std::min(words.find(' '), words.size());
    if (words.substr(0, end) == word) return true;
    words.remove_prefix(std::min(end + 1, words.size()));
  }
  return false;
}

void refuse_uncarried(std::span<const ComputingField> fields, std::string_view kind, const JsonObject& config) {
  for (const ComputingField& known : fields) {
    const nlohmann::json* value = config.find(known.field);
    if (!value || has_word(known.read_by, kind)) continue;
    const nlohmann::json neutral = parse_json(known.neutral, "neutral values");
    if (std::find(neutral.begin(), neutral.end(), *value) != neutral.end()) continue;
    fail("{}: {} is {}, which is not supported in a {} model; use another model", printable(config.file(), 400),
         known.field, config.shown(known.field), kind);
  }
}

}  // namespace contexture
