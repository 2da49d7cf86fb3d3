// Bindings only: addresses and sizes come in as integers, the GIL goes, a kernel runs. Checks live in python/bre/ops.
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.h"
#include "cpu/bre_cpu.h"
#include "cpu/isa.h"

namespace py = pybind11;
using namespace py::literals;
namespace cpu = bre::cpu;
using bre::by_address;

namespace {

const std::map<std::string, cpu::Isa> kIsas = {
    {"baseline", cpu::Isa::baseline}, {"avx2", cpu::Isa::avx2}, {"avx512", cpu::Isa::avx512}};

std::vector<std::string> isas() {
  std::vector<std::string> names;
  for (const auto& [name, isa] : kIsas) {
    if (cpu::supported(isa)) names.push_back(name);
  }
  return names;
}

std::string isa() {
  for (const auto& [name, isa] : kIsas) {
    if (isa == cpu::current_isa()) return name;
  }
  throw std::logic_error("unnamed instruction set");
}

void use_isa(const std::string& name) {
  const auto found = kIsas.find(name);
  if (found == kIsas.end()) throw std::invalid_argument("no instruction set is called " + name);
  cpu::use_isa(found->second);
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "bre's compiled CPU kernels; call them through bre.ops, which checks what it passes";
  const auto no_gil = py::call_guard<py::gil_scoped_release>();

  m.def("isas", isas);
  m.def("isa", isa);
  m.def("use_isa", use_isa, "name"_a);

  m.def("apply_pattern", by_address(cpu::apply_pattern), py::kw_only(), "images"_a, "shape"_a, "index"_a, "sign"_a,
        "T"_a, "N"_a, "pattern"_a, "mean"_a, "std"_a, "layout"_a, "dtype"_a, "out"_a, "threads"_a, no_gil);
  m.def("loss_head", by_address(cpu::loss_head), py::kw_only(), "logits"_a, "dtype"_a, "target"_a, "sign"_a, "weight"_a,
        "T"_a, "N"_a, "K"_a, "loss"_a, "grad"_a, "success"_a, "threads"_a, no_gil);
  m.def("update_pattern", by_address(cpu::update_pattern), py::kw_only(), "grad"_a, "dtype"_a, "layout"_a, "images"_a,
        "shape"_a, "index"_a, "sign"_a, "T"_a, "N"_a, "pattern"_a, "momentum"_a, "active"_a, "std"_a, "step"_a,
        "gradient"_a, "norms"_a, "threads"_a, no_gil);
  m.def("moments", by_address(cpu::moments), py::kw_only(), "images"_a, "M"_a, "D"_a, "order"_a, "offsets"_a, "K"_a,
        "count"_a, "sum"_a, "second"_a, "threads"_a, no_gil);
  m.def("gram", by_address(cpu::gram), py::kw_only(), "codes"_a, "n"_a, "D"_a, "out"_a, "threads"_a, no_gil);
  m.def("cross_gram", by_address(cpu::cross_gram), py::kw_only(), "left"_a, "r"_a, "right"_a, "n"_a, "D"_a, "out"_a,
        "threads"_a, no_gil);
  m.def("sum_grams", by_address(cpu::sum_grams), py::kw_only(), "parts"_a, "rows"_a, "r"_a, "n"_a, "floor"_a, "out"_a,
        "excess"_a, "above"_a, "threads"_a, no_gil);
  m.def("halve", by_address(cpu::halve), py::kw_only(), "images"_a, "M"_a, "size"_a, "out"_a, "threads"_a, no_gil);
  m.def("cut_tiles", by_address(cpu::cut_tiles), py::kw_only(), "images"_a, "M"_a, "size"_a, "grid"_a, "chosen"_a,
        "Q"_a, "out"_a, "threads"_a, no_gil);
  m.def("channel_sums", by_address(cpu::channel_sums), py::kw_only(), "images"_a, "M"_a, "size"_a, "out"_a, "threads"_a,
        no_gil);
  m.def("whiten", by_address(cpu::whiten), py::kw_only(), "images"_a, "M"_a, "size"_a, "grid"_a, "sums"_a, "rows"_a,
        "scale"_a, "channel"_a, "offset"_a, "values"_a, "kept"_a, "total"_a, "first"_a, "threads"_a, no_gil);
  m.def("centre_moments", by_address(cpu::centre_moments), py::kw_only(), "exact"_a, "with_sum"_a, "with_mean"_a,
        "channel"_a, "d"_a, "C"_a, "out"_a, "threads"_a, no_gil);
  m.def("project", by_address(cpu::project), py::kw_only(), "images"_a, "M"_a, "D"_a, "templates"_a, "P"_a, "out"_a,
        "threads"_a, no_gil);
}
