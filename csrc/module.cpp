// Bindings only: addresses and sizes come in as integers, the GIL goes, a kernel runs. Checks live in python/bre/ops.
#include <pybind11/pybind11.h>

#include <map>
#include <stdexcept>
#include <string>

#include "cpu/bre_cpu.h"
#include "cpu/isa.h"

namespace py = pybind11;
using namespace py::literals;
namespace cpu = bre::cpu;

namespace {

using Address = std::uintptr_t;

template <class Number>
Number* at(Address address) {
  return reinterpret_cast<Number*>(address);
}

const std::map<std::string, cpu::Isa> kIsas = {
    {"baseline", cpu::Isa::baseline}, {"avx2", cpu::Isa::avx2}, {"avx512", cpu::Isa::avx512}};

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "bre's compiled CPU kernels; call them through bre.ops, which checks what it passes";
  const auto no_gil = py::call_guard<py::gil_scoped_release>();

  py::enum_<cpu::Dtype>(m, "Dtype")
      .value("f32", cpu::Dtype::f32)
      .value("bf16", cpu::Dtype::bf16)
      .value("f16", cpu::Dtype::f16);
  py::enum_<cpu::Layout>(m, "Layout").value("nchw", cpu::Layout::nchw).value("nhwc", cpu::Layout::nhwc);

  m.def("isas", [] {
    py::list names;
    for (const auto& [name, isa] : kIsas) {
      if (cpu::supported(isa)) names.append(name);
    }
    return names;
  });
  m.def("isa", [] {
    for (const auto& [name, isa] : kIsas) {
      if (isa == cpu::current_isa()) return name;
    }
    throw std::logic_error("unnamed instruction set");
  });
  m.def("use_isa", [](const std::string& name) {
    const auto found = kIsas.find(name);
    if (found == kIsas.end()) throw std::invalid_argument("no instruction set is called " + name);
    cpu::use_isa(found->second);
  });

  m.def(
      "apply_pattern",
      [](Address images, std::int64_t C, std::int64_t A, Address index, Address sign, std::int64_t T, std::int64_t N,
         Address pattern, Address mean, Address std, cpu::Layout layout, cpu::Dtype dtype, Address out, int threads) {
        cpu::apply_pattern(at<const std::uint8_t>(images), {C, A}, at<const std::int64_t>(index),
                           at<const std::int8_t>(sign), T, N, at<const float>(pattern), at<const float>(mean),
                           at<const float>(std), layout, dtype, at<void>(out), threads);
      },
      py::kw_only(), "images"_a, "C"_a, "A"_a, "index"_a, "sign"_a, "T"_a, "N"_a, "pattern"_a, "mean"_a, "std"_a,
      "layout"_a, "dtype"_a, "out"_a, "threads"_a, no_gil);

  m.def(
      "loss_head",
      [](Address logits, cpu::Dtype dtype, Address target, Address sign, Address weight, std::int64_t T, std::int64_t N,
         std::int64_t K, Address loss, Address grad, Address success, int threads) {
        cpu::loss_head(at<const void>(logits), dtype, at<const std::int64_t>(target), at<const std::int8_t>(sign),
                       at<const float>(weight), T, N, K, at<float>(loss), at<void>(grad), at<bool>(success), threads);
      },
      py::kw_only(), "logits"_a, "dtype"_a, "target"_a, "sign"_a, "weight"_a, "T"_a, "N"_a, "K"_a, "loss"_a, "grad"_a,
      "success"_a, "threads"_a, no_gil);

  m.def(
      "update_pattern",
      [](Address grad, cpu::Dtype dtype, cpu::Layout layout, Address images, std::int64_t C, std::int64_t A,
         Address index, Address sign, std::int64_t T, std::int64_t N, Address pattern, Address momentum, Address active,
         Address std, float step, float decay, float bound, Address norms, int threads) {
        cpu::update_pattern(at<const void>(grad), dtype, layout, at<const std::uint8_t>(images), {C, A},
                            at<const std::int64_t>(index), at<const std::int8_t>(sign), T, N, at<float>(pattern),
                            at<float>(momentum), at<const bool>(active), at<const float>(std), {step, decay, bound},
                            at<float>(norms), threads);
      },
      py::kw_only(), "grad"_a, "dtype"_a, "layout"_a, "images"_a, "C"_a, "A"_a, "index"_a, "sign"_a, "T"_a, "N"_a,
      "pattern"_a, "momentum"_a, "active"_a, "std"_a, "step"_a, "decay"_a, "bound"_a, "norms"_a, "threads"_a, no_gil);

  m.def(
      "moments",
      [](Address images, std::int64_t M, std::int64_t D, Address labels, Address count, Address sum, Address second,
         int threads) {
        cpu::moments(at<const std::uint8_t>(images), M, D, at<const std::int64_t>(labels), at<std::int64_t>(count),
                     at<std::int64_t>(sum), at<std::int64_t>(second), threads);
      },
      py::kw_only(), "images"_a, "M"_a, "D"_a, "labels"_a, "count"_a, "sum"_a, "second"_a, "threads"_a, no_gil);

  m.def(
      "project",
      [](Address images, std::int64_t M, std::int64_t D, Address templates, std::int64_t P, Address out, int threads) {
        cpu::project(at<const std::uint8_t>(images), M, D, at<const float>(templates), P, at<float>(out), threads);
      },
      py::kw_only(), "images"_a, "M"_a, "D"_a, "templates"_a, "P"_a, "out"_a, "threads"_a, no_gil);
}
