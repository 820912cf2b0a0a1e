#pragma once

#include <string>
#include <utility>
#include <vector>

namespace contexture::cli {

/// A curve plot as SVG text, for people: axes from zero, ticks at round numbers, a legend.
struct SvgPlot {
  struct Curve {
    std::string name;
    std::vector<std::pair<double, double>> points;  ///< (x, y), by ascending x
  };
  std::string title, x_label, y_label;
  std::vector<Curve> curves;

  std::string draw() const;
};

/// Draws to a file, which is there whole or as it was.
void write_plot(const std::string& path, const SvgPlot& svg);
/// The path of another picture beside this one: "a.svg" and "-ranks" make "a-ranks.svg".
std::string beside(const std::string& path, const std::string& suffix);

}  // namespace contexture::cli
