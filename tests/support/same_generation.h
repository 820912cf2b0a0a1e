#pragma once

#include <gtest/gtest.h>

#include "contexture/generation.h"

namespace contexture {

/// Two ways to one text.
inline void expect_same(const Generation& made, const Generation& expected) {
  EXPECT_EQ(made.token_ids, expected.token_ids);
  EXPECT_EQ(made.log_probabilities, expected.log_probabilities) << "to the bit";
  EXPECT_EQ(made.text, expected.text);
  EXPECT_EQ(made.finish_reason, expected.finish_reason);
}

}  // namespace contexture
