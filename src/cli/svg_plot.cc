#include "cli/svg_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <iterator>

#include "base/atomic_file.h"
#include "cli/command.h"

namespace contexture::cli {
namespace {

constexpr double kWidth = 760, kHeight = 440, kLeft = 76, kRight = 170, kTop = 54, kBottom = 56;
constexpr const char* kColours[] = {"#1f6fb4", "#d1541f", "#2f8f4e", "#8a4fb0", "#b08a1a", "#4a4a4a"};

/// 1, 2 or 5 times a power of ten, so that about five steps reach `most`.
double tick_step(double most) {
  const double rough = most / 5, power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= rough) return factor * power;
  }
  return 10 * power;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '<') {
      out += "&lt;";
    } else if (c == '&') {
      out += "&amp;";
    } else {
      out += c;
    }
  }
  return out;
}

/// Numbers to points of the picture.
class Canvas {
 public:
  Canvas(double most_x, double most_y) : most_x_(most_x), most_y_(most_y) {}
  double x(double value) const { return kLeft + value / most_x_ * (kWidth - kLeft - kRight); }
  double y(double value) const { return kHeight - kBottom - value / most_y_ * (kHeight - kTop - kBottom); }

  void line(double x1, double y1, double x2, double y2, const char* colour) {
    svg += fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" stroke=\"{}\"/>\n", x1, y1, x2,
                       y2, colour);
  }
  void text(double at_x, double at_y, const char* anchor, const std::string& what, const char* more = "") {
    svg += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\"{}>{}</text>\n", at_x, at_y, anchor, more,
                       escaped(what));
  }
  void axes() {
    const double step_x = tick_step(most_x_), step_y = tick_step(most_y_);
    for (double v = 0; v <= most_y_ * 1.001; v += step_y) {
      line(x(0), y(v), x(most_x_), y(v), "#e0e0e0");
      text(x(0) - 8, y(v) + 4, "end", fmt::format("{:g}", v));
    }
    for (double v = 0; v <= most_x_ * 1.001; v += step_x) {
      line(x(v), y(0), x(v), y(0) + 5, "#606060");
      text(x(v), y(0) + 20, "middle", fmt::format("{:g}", v));
    }
    line(x(0), y(0), x(most_x_), y(0), "#606060");
  }
  void curve(const SvgPlot::Curve& curve, size_t index) {
    const char* colour = kColours[index % std::size(kColours)];
    std::string points;
    for (const auto& [px, py] : curve.points) points += fmt::format("{:.1f},{:.1f} ", x(px), y(py));
    svg += fmt::format("<polyline fill=\"none\" stroke=\"{}\" stroke-width=\"2\" points=\"{}\"/>\n", colour, points);
    for (const auto& [px, py] : curve.points) {
      svg += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\" fill=\"{}\"/>\n", x(px), y(py), colour);
    }
    const double legend_y = kTop + 14 + 20 * static_cast<double>(index);
    line(kWidth - kRight + 14, legend_y - 4, kWidth - kRight + 36, legend_y - 4, colour);
    text(kWidth - kRight + 42, legend_y, "start", curve.name);
  }

  std::string svg;

 private:
  double most_x_, most_y_;
};

}  // namespace

std::string SvgPlot::draw() const {
  double most_x = 0, most_y = 0;
  for (const Curve& curve : curves) {
    for (const auto& [x, y] : curve.points) most_x = std::max(most_x, x), most_y = std::max(most_y, y);
  }
  Canvas canvas(most_x > 0 ? most_x : 1, most_y > 0 ? most_y * 1.05 : 1);
  canvas.svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {0} {1}\" width=\"{0}\" height=\"{1}\" "
      "font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
      kWidth, kHeight);
  canvas.text(kLeft, 24, "start", title, " font-size=\"15\"");
  canvas.axes();
  canvas.text((kLeft + kWidth - kRight) / 2, kHeight - 14, "middle", x_label);
  canvas.text(kLeft, kTop - 8, "start", y_label);
  for (size_t i = 0; i < curves.size(); ++i) canvas.curve(curves[i], i);
  return canvas.svg + "</svg>\n";
}

void write_plot(const std::string& path, const SvgPlot& svg) {
  const std::string text = svg.draw();
  AtomicFile file(path_to_write(path));
  file.write(std::as_bytes(std::span(text)));
  file.publish();
}

std::string beside(const std::string& path, const std::string& suffix) {
  const std::filesystem::path p = path;
  return (p.parent_path() / (p.stem().string() + suffix + p.extension().string())).string();
}

}  // namespace contexture::cli
