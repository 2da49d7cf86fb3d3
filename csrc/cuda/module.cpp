// Bindings only: addresses and sizes come in as integers, the GIL goes, a kernel is put on the stream. Checks live in
// python/bre/ops. A module of its own, beside _core, so that a machine without CUDA misses nothing else.
#include "../bindings.h"
#include "bre_cuda.h"

namespace py = pybind11;
using namespace py::literals;
namespace cuda = bre::cuda;

namespace {

// bre::by_address, on one of the machine's devices: a further argument, the last.
template <class... Parameters>
auto on_device(void (*kernel)(Parameters...)) {
  return [kernel](const typename bre::FromPython<Parameters>::type&... given, int device) {
    const cuda::DeviceScope scope(device);
    kernel(bre::FromPython<Parameters>::convert(given)...);
  };
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "bre's CUDA kernels; call them through bre.ops, which checks what it passes";
  m.attr("architectures") = BRE_CUDA_ARCHITECTURES;
  const auto no_gil = py::call_guard<py::gil_scoped_release>();

  m.def("device_count", cuda::device_count, no_gil);
  m.def("capability", cuda::capability, "device"_a, no_gil);

  m.def("apply_pattern", on_device(cuda::apply_pattern), py::kw_only(), "images"_a, "shape"_a, "index"_a, "sign"_a,
        "T"_a, "N"_a, "pattern"_a, "mean"_a, "std"_a, "layout"_a, "dtype"_a, "out"_a, "stream"_a, "device"_a, no_gil);
  m.def("loss_head", on_device(cuda::loss_head), py::kw_only(), "logits"_a, "dtype"_a, "target"_a, "sign"_a, "weight"_a,
        "T"_a, "N"_a, "K"_a, "loss"_a, "grad"_a, "success"_a, "stream"_a, "device"_a, no_gil);
  m.def("update_pattern", on_device(cuda::update_pattern), py::kw_only(), "grad"_a, "dtype"_a, "layout"_a, "images"_a,
        "shape"_a, "index"_a, "sign"_a, "T"_a, "N"_a, "pattern"_a, "momentum"_a, "active"_a, "std"_a, "step"_a,
        "gradient"_a, "norms"_a, "stream"_a, "device"_a, no_gil);
  m.def("moments", on_device(cuda::moments), py::kw_only(), "images"_a, "M"_a, "D"_a, "order"_a, "offsets"_a, "K"_a,
        "count"_a, "sum"_a, "second"_a, "stream"_a, "device"_a, no_gil);
  m.def("gram", on_device(cuda::gram), py::kw_only(), "codes"_a, "n"_a, "D"_a, "out"_a, "stream"_a, "device"_a, no_gil);
  m.def("add_second_moment", on_device(cuda::add_second_moment), py::kw_only(), "images"_a, "M"_a, "D"_a, "second"_a,
        "stream"_a, "device"_a, no_gil);
  m.def("cross_gram", on_device(cuda::cross_gram), py::kw_only(), "left"_a, "r"_a, "right"_a, "n"_a, "D"_a, "out"_a,
        "stream"_a, "device"_a, no_gil);
  m.def("sum_grams", on_device(cuda::sum_grams), py::kw_only(), "parts"_a, "rows"_a, "r"_a, "n"_a, "floor"_a, "out"_a,
        "excess"_a, "above"_a, "stream"_a, "device"_a, no_gil);
  m.def("halve", on_device(cuda::halve), py::kw_only(), "images"_a, "M"_a, "size"_a, "out"_a, "stream"_a, "device"_a,
        no_gil);
  m.def("channel_sums", on_device(cuda::channel_sums), py::kw_only(), "images"_a, "M"_a, "size"_a, "out"_a, "stream"_a,
        "device"_a, no_gil);
  m.def("cut_tiles", on_device(cuda::cut_tiles), py::kw_only(), "images"_a, "M"_a, "size"_a, "grid"_a, "chosen"_a,
        "Q"_a, "places"_a, "out"_a, "stream"_a, "device"_a, no_gil);
  m.def("whiten", on_device(cuda::whiten), py::kw_only(), "images"_a, "M"_a, "size"_a, "grid"_a, "places"_a, "sums"_a,
        "rows"_a, "scale"_a, "channel"_a, "offset"_a, "values"_a, "kept"_a, "total"_a, "first"_a, "stream"_a,
        "device"_a, no_gil);
  m.def("project", on_device(cuda::project), py::kw_only(), "images"_a, "M"_a, "D"_a, "templates"_a, "P"_a, "out"_a,
        "stream"_a, "device"_a, no_gil);
}
