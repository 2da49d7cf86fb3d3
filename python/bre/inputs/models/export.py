"""What a torch.export program was fixed to, and whether it can be used frozen."""

from collections.abc import Iterator
from typing import Any, TypeAlias

import torch

from ...errors import InputError

BatchRange: TypeAlias = tuple[int, int | None]  # fewest and most images in one call; None for no limit

_MODE_ARGUMENTS = ("training", "train")  # of batch_norm and of dropout


def describe_program(program: torch.export.ExportedProgram) -> tuple[tuple[int, int, int] | None, BatchRange]:
    """The (C, H, W) that the program takes (None where it is free) and its batch range.

    Raises InputError when it takes anything but one float32 (n, C, H, W) batch, or was exported in training
    mode.
    """
    refuse_training(program.graph_module)
    if changed := _changed_buffers(program):
        raise InputError(f"the exported program changes its own buffers {changed}: export one that does not")
    names = program.graph_signature.user_inputs
    vals = [n.meta.get("val") for n in program.graph.find_nodes(op="placeholder") if n.name in names]
    if len(vals) != 1 or not isinstance(vals[0], torch.Tensor):
        raise InputError(f"the exported program must take one batch of images, its inputs are {list(names)}")
    val = vals[0]
    if val.ndim != 4 or val.dtype != torch.float32:
        raise InputError(
            f"the exported program must take float32 (n, C, H, W), it takes {val.dtype} {tuple(val.shape)}"
        )
    c, h, w = val.shape[1:]
    free = any(isinstance(n, torch.SymInt) for n in (c, h, w))
    return (None if free else (c, h, w)), _batch_range(program, val.shape[0])


def _batch_range(program: torch.export.ExportedProgram, n: int | torch.SymInt) -> BatchRange:
    if not isinstance(n, torch.SymInt):
        return n, n
    limits = program.range_constraints.get(n.node.expr)
    if limits is None:
        raise InputError(
            f"the exported program's batch size is bound to {n}: export it with a free batch dimension, "
            "dynamic_shapes={'x': {0: torch.export.Dim('batch')}}"
        )
    return max(1, int(limits.lower)), int(limits.upper) if limits.upper.is_Integer else None


def refuse_training(module: torch.nn.Module) -> None:
    """Raise InputError when an exported graph in the module normalises or drops as in training."""
    for graph_module in module.modules():
        if not isinstance(graph_module, torch.fx.GraphModule):
            continue
        for node in graph_module.graph.nodes:
            if isinstance(node.target, torch._ops.OpOverload) and (name := _mode_argument(node)):
                raise InputError(
                    f"the program was exported in training mode ({node.target} with {name}=True): call "
                    "model.eval() before torch.export.export"
                )


def _mode_argument(node: torch.fx.Node) -> str | None:
    """The name of an argument that puts this call in training mode, None where there is none."""
    return next((a.name for a, given in _arguments(node) if a.name in _MODE_ARGUMENTS and given is True), None)


def _changed_buffers(program: torch.export.ExportedProgram) -> list[str]:
    """Buffers that a call writes to: as outputs in functional programs, in place in others."""
    changed = set(program.graph_signature.buffers_to_mutate.values())
    buffers = program.graph_signature.inputs_to_buffers
    for node in program.graph.nodes:
        if isinstance(node.target, torch._ops.OpOverload):
            written = {str(given) for a, given in _arguments(node) if a.alias_info and a.alias_info.is_write}
            changed |= {buffers[name] for name in written & buffers.keys()}
    return sorted(changed)


def _arguments(node: torch.fx.Node) -> Iterator[tuple[Any, Any]]:
    """Each argument that the call's operator declares, with what it is given here."""
    operator: Any = node.target
    for i, argument in enumerate(operator._schema.arguments):
        yield argument, node.args[i] if i < len(node.args) else node.kwargs.get(argument.name)
