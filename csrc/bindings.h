// What the two extension modules share: arrays come in as addresses, and a kernel's own declaration says the rest.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "cpu/bre_cpu.h"

namespace bre {

// How a kernel's parameter comes from Python: a pointer as an integer, a name as a string, a struct as a tuple, a
// number as it is.
template <class Parameter>
struct FromPython {
  using type = Parameter;
  static Parameter convert(type given) { return given; }
};
template <class Number>
struct FromPython<Number*> {
  using type = std::uintptr_t;
  static Number* convert(type given) { return reinterpret_cast<Number*>(given); }
};

template <>
struct FromPython<cpu::Dtype> {
  using type = std::string;
  static cpu::Dtype convert(const type& name) {
    if (name == "f32") return cpu::Dtype::f32;
    if (name == "bf16") return cpu::Dtype::bf16;
    if (name == "f16") return cpu::Dtype::f16;
    throw std::invalid_argument("no dtype is called " + name);
  }
};
template <>
struct FromPython<cpu::Layout> {
  using type = std::string;
  static cpu::Layout convert(const type& name) {
    if (name == "nchw") return cpu::Layout::nchw;
    if (name == "nhwc") return cpu::Layout::nhwc;
    throw std::invalid_argument("no layout is called " + name);
  }
};
template <>
struct FromPython<cpu::ImageShape> {
  using type = std::tuple<std::int64_t, std::int64_t, std::int64_t>;  // C, H, W
  static cpu::ImageShape convert(const type& shape) {
    return {std::get<0>(shape), std::get<1>(shape) * std::get<2>(shape)};
  }
};
template <>
struct FromPython<cpu::UpdateStep> {
  using type = std::tuple<float, float, float>;
  static cpu::UpdateStep convert(const type& step) { return {std::get<0>(step), std::get<1>(step), std::get<2>(step)}; }
};

template <>
struct FromPython<cpu::ImageSize> {
  using type = std::tuple<std::int64_t, std::int64_t, std::int64_t>;
  static cpu::ImageSize convert(const type& size) { return {std::get<0>(size), std::get<1>(size), std::get<2>(size)}; }
};
template <>
struct FromPython<cpu::GramParts> {
  using type = std::vector<std::uintptr_t>;
  static cpu::GramParts convert(const type& given) {
    cpu::GramParts parts{{}, static_cast<int>(given.size())};
    for (std::size_t i = 0; i < 4; ++i) {  // where there is none, the first again
      parts.part[i] = reinterpret_cast<const std::int32_t*>(given.at(i < given.size() ? i : 0));
    }
    return parts;
  }
};
template <>
struct FromPython<cpu::TileGrid> {
  using type = std::array<std::int64_t, 8>;  // in the order of the declaration
  static cpu::TileGrid convert(const type& x) { return {x[0], x[1], x[2], x[3], x[4], x[5], x[6], x[7]}; }
};

// The kernel as pybind11 can bind it: its arguments' order and names are those of its declaration.
template <class... Parameters>
auto by_address(void (*kernel)(Parameters...)) {
  return [kernel](const typename FromPython<Parameters>::type&... given) {
    kernel(FromPython<Parameters>::convert(given)...);
  };
}

}  // namespace bre
