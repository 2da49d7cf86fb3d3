"""Batch norms folded into the convolutions before them: the same logits from fewer passes over memory."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter, getitem
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_weights

_aten = torch.ops.aten
_CONVOLUTIONS = (
    _aten.conv1d.default,
    _aten.conv2d.default,
    _aten.conv3d.default,
    _aten.convolution.default,
    _aten.conv1d.padding,
    _aten.conv2d.padding,
    _aten.conv3d.padding,
)
_BATCH_NORM = _aten.batch_norm.default
_DECOMPOSED = _aten._native_batch_norm_legit_no_training.default
# These very classes, as a subclass may compute something else.
_MODULES: dict[type, Callable[..., Tensor]] = {
    nn.Conv1d: functional.conv1d,
    nn.Conv2d: functional.conv2d,
    nn.Conv3d: functional.conv3d,
}
_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class _Convolution(NamedTuple):
    """function(x, weight, bias, *rest)."""

    function: Callable[..., Tensor]
    weight: Tensor
    bias: Tensor | None
    rest: tuple[Any, ...]


class _Norm(NamedTuple):
    """(x - mean) / sqrt(variance + eps) * weight + bias, per channel."""

    mean: Tensor
    variance: Tensor
    eps: float
    weight: Tensor | None
    bias: Tensor | None


def folded(module: nn.Module) -> fx.GraphModule | None:
    """The same function of a frozen module in evaluation mode, with fewer operations.

    module: any nn.Module, `ExportedProgram.module()` included. It is left as it is, and shares with the answer the
    weights that do not change, so the answer holds until they do. None where there is nothing to fold, or where the
    module cannot be traced (control flow that depends on values, TorchScript).
    """
    try:
        graph = _copy(module.graph) if isinstance(module, fx.GraphModule) else _traced(module)
        traced = fx.GraphModule(module, graph)
    except Exception:  # tracing runs the module's own code on stand-ins, which may fail in any way
        return None
    count = 0
    for node in list(graph.nodes):
        norm, before = _norm(traced, node), node.args[0] if node.args else None
        if norm is None or not isinstance(before, fx.Node) or len(before.users) > 1:
            continue
        convolution = _convolution(traced, before)
        if convolution is None:
            continue
        weight, bias = fuse_conv_bn_weights(
            convolution.weight, convolution.bias, norm.mean, norm.variance, norm.eps, norm.weight, norm.bias
        )
        layout = torch.channels_last if weight.ndim == 4 else torch.contiguous_format
        traced.register_buffer(f"folded_weight_{count}", weight.detach().contiguous(memory_format=layout))
        traced.register_buffer(f"folded_bias_{count}", bias.detach())
        with graph.inserting_after(before):
            values = [graph.get_attr(f"folded_{name}_{count}") for name in ("weight", "bias")]
        with graph.inserting_before(node):
            new = graph.call_function(convolution.function, (before.args[0], *values, *convolution.rest))
        for user in list(node.users) if node.target is _DECOMPOSED else [node]:
            user.replace_all_uses_with(new)
        count += 1
    if count == 0:
        return None
    graph.eliminate_dead_code()
    graph.lint()
    traced.recompile()
    return traced


def _traced(module: nn.Module) -> fx.Graph:
    """The module's operations. Its code and its hooks run on stand-ins for tensors, which they may keep: what they
    wrote into the module is undone, and modules whose hooks could have put some elsewhere are not traced."""
    tracer = fx.Tracer()
    if any(_hooks(m) and not tracer.is_leaf_module(m, name) for name, m in module.named_modules()):
        raise fx.proxy.TraceError("a hook would run")
    kept = [held for m in module.modules() for held in (vars(m), *vars(m).values()) if isinstance(held, dict | list)]
    before = [held.copy() for held in kept]
    try:
        return tracer.trace(module)
    finally:
        for held, was in zip(kept, before, strict=True):
            held.clear()
            held.update(was) if isinstance(held, dict) else held.extend(was)


def _copy(graph: fx.Graph) -> fx.Graph:
    copied = fx.Graph()
    copied.output(copied.graph_copy(graph, {}))
    copied.set_codegen(graph._codegen)  # how an exported program takes its arguments apart
    return copied


def _norm(traced: fx.GraphModule, node: fx.Node) -> _Norm | None:
    """What a batch norm does in evaluation mode; None where the node is none, or normalises by its own batch."""
    if node.op == "call_module":
        m: Any = traced.get_submodule(str(node.target))
        if type(m) in _NORMS and not m.training and m.running_mean is not None and not _hooked(m):
            return _Norm(m.running_mean, m.running_var, m.eps, m.weight, m.bias)
    elif node.op == "call_function" and node.target in (_BATCH_NORM, _DECOMPOSED):
        weight, bias, mean, variance = (_value(traced, given) for given in node.args[1:5])
        own = node.target is _BATCH_NORM and node.args[5]
        others = node.target is _DECOMPOSED and any(u.target is not getitem or u.args[1] != 0 for u in node.users)
        if not own and not others and mean is not None and variance is not None:
            eps: Any = node.args[7 if node.target is _BATCH_NORM else 6]
            return _Norm(mean, variance, eps, weight, bias)
    return None


def _convolution(traced: fx.GraphModule, node: fx.Node) -> _Convolution | None:
    if node.op == "call_module":
        m: Any = traced.get_submodule(str(node.target))
        if type(m) in _MODULES and m.padding_mode == "zeros" and not _hooked(m):
            return _Convolution(_MODULES[type(m)], m.weight, m.bias, (m.stride, m.padding, m.dilation, m.groups))
    elif node.op == "call_function" and node.target in _CONVOLUTIONS:
        weight = _value(traced, node.args[1])
        transposed = node.target is _aten.convolution.default and node.args[6]
        if weight is not None and not transposed and not node.kwargs:
            bias = _value(traced, node.args[2]) if len(node.args) > 2 else None
            return _Convolution(node.target, weight, bias, tuple(node.args[3:]))
    return None


def _value(traced: fx.GraphModule, given: Any) -> Tensor | None:
    """The tensor that a graph's argument stands for, None where it is no constant."""
    if isinstance(given, fx.Node) and given.op == "get_attr":
        value = attrgetter(str(given.target))(traced)
        return value if isinstance(value, Tensor) else None
    return None


def _hooked(module: nn.Module) -> bool:
    """Whether a module does more than its forward: hooks, or weights computed anew at every call."""
    return _hooks(module) or hasattr(module, "parametrizations")


def _hooks(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks or module._backward_hooks)
