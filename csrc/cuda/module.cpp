// Bindings only: addresses and sizes come in as integers, the GIL goes, a kernel is put on the stream. Checks live in
// python/bre/ops. A module of its own, beside _core, so that a machine without CUDA misses nothing else.
#include <pybind11/pybind11.h>

#include "bre_cuda.h"

namespace py = pybind11;
using namespace py::literals;
namespace cuda = bre::cuda;

namespace {

using Address = std::uintptr_t;

template <class Number>
Number* at(Address address) {
  return reinterpret_cast<Number*>(address);
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "bre's CUDA kernels; call them through bre.ops, which checks what it passes";
  m.attr("architectures") = BRE_CUDA_ARCHITECTURES;
  const auto no_gil = py::call_guard<py::gil_scoped_release>();

  py::enum_<cuda::Dtype>(m, "Dtype", py::module_local())
      .value("f32", cuda::Dtype::f32)
      .value("bf16", cuda::Dtype::bf16)
      .value("f16", cuda::Dtype::f16);
  py::enum_<cuda::Layout>(m, "Layout", py::module_local())
      .value("nchw", cuda::Layout::nchw)
      .value("nhwc", cuda::Layout::nhwc);

  m.def("device_count", &cuda::device_count, no_gil);
  m.def("capability", &cuda::capability, "device"_a, no_gil);

  m.def(
      "apply_pattern",
      [](Address images, std::int64_t C, std::int64_t A, Address index, Address sign, std::int64_t T, std::int64_t N,
         Address pattern, Address mean, Address std, cuda::Layout layout, cuda::Dtype dtype, Address out, int device,
         Address stream) {
        const cuda::DeviceScope scope(device);
        cuda::apply_pattern(at<const std::uint8_t>(images), {C, A}, at<const std::int64_t>(index),
                            at<const std::int8_t>(sign), T, N, at<const float>(pattern), at<const float>(mean),
                            at<const float>(std), layout, dtype, at<void>(out), at<CUstream_st>(stream));
      },
      py::kw_only(), "images"_a, "C"_a, "A"_a, "index"_a, "sign"_a, "T"_a, "N"_a, "pattern"_a, "mean"_a, "std"_a,
      "layout"_a, "dtype"_a, "out"_a, "device"_a, "stream"_a, no_gil);

  m.def(
      "loss_head",
      [](Address logits, cuda::Dtype dtype, Address target, Address sign, Address weight, std::int64_t T,
         std::int64_t N, std::int64_t K, Address loss, Address grad, Address success, int device, Address stream) {
        const cuda::DeviceScope scope(device);
        cuda::loss_head(at<const void>(logits), dtype, at<const std::int64_t>(target), at<const std::int8_t>(sign),
                        at<const float>(weight), T, N, K, at<float>(loss), at<void>(grad), at<bool>(success),
                        at<CUstream_st>(stream));
      },
      py::kw_only(), "logits"_a, "dtype"_a, "target"_a, "sign"_a, "weight"_a, "T"_a, "N"_a, "K"_a, "loss"_a, "grad"_a,
      "success"_a, "device"_a, "stream"_a, no_gil);

  m.def(
      "update_pattern",
      [](Address grad, cuda::Dtype dtype, cuda::Layout layout, Address images, std::int64_t C, std::int64_t A,
         Address index, Address sign, std::int64_t T, std::int64_t N, Address pattern, Address momentum, Address active,
         Address std, float step, float decay, float bound, Address gradient, Address norms, int device,
         Address stream) {
        const cuda::DeviceScope scope(device);
        cuda::update_pattern(at<const void>(grad), dtype, layout, at<const std::uint8_t>(images), {C, A},
                             at<const std::int64_t>(index), at<const std::int8_t>(sign), T, N, at<float>(pattern),
                             at<float>(momentum), at<const bool>(active), at<const float>(std), {step, decay, bound},
                             at<float>(gradient), at<float>(norms), at<CUstream_st>(stream));
      },
      py::kw_only(), "grad"_a, "dtype"_a, "layout"_a, "images"_a, "C"_a, "A"_a, "index"_a, "sign"_a, "T"_a, "N"_a,
      "pattern"_a, "momentum"_a, "active"_a, "std"_a, "step"_a, "decay"_a, "bound"_a, "gradient"_a, "norms"_a,
      "device"_a, "stream"_a, no_gil);

  m.def(
      "moments",
      [](Address images, std::int64_t M, std::int64_t D, Address order, Address offsets, std::int64_t K, Address count,
         Address sum, Address second, int device, Address stream) {
        const cuda::DeviceScope scope(device);
        cuda::moments(at<const std::uint8_t>(images), M, D, at<const std::int64_t>(order),
                      at<const std::int64_t>(offsets), K, at<std::int64_t>(count), at<std::int64_t>(sum),
                      at<std::int64_t>(second), at<CUstream_st>(stream));
      },
      py::kw_only(), "images"_a, "M"_a, "D"_a, "order"_a, "offsets"_a, "K"_a, "count"_a, "sum"_a, "second"_a,
      "device"_a, "stream"_a, no_gil);

  m.def(
      "project",
      [](Address images, std::int64_t M, std::int64_t D, Address templates, std::int64_t P, Address out, int device,
         Address stream) {
        const cuda::DeviceScope scope(device);
        cuda::project(at<const std::uint8_t>(images), M, D, at<const float>(templates), P, at<float>(out),
                      at<CUstream_st>(stream));
      },
      py::kw_only(), "images"_a, "M"_a, "D"_a, "templates"_a, "P"_a, "out"_a, "device"_a, "stream"_a, no_gil);
}
