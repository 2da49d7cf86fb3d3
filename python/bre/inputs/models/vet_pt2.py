"""Model files read without running them: an allow-list, because torch.export.load trusts its file.

Loading a .pt2 can unpickle weights, constants and sample inputs, evaluates shape expressions as Python,
imports modules named by tree specs, and calls whatever the graph's targets name (`torch.os.system` included).
So every string of a .pt2 must be one of: a plain name, an operator of a known namespace, arithmetic on
shapes, or text that torch only stores. What torch itself writes for a plain network passes; everything else
needs unsafe=True.
"""

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import torch

from ..._check import first_line
from ...errors import InputError
from .file_kinds import check_unpacked_size, refuse_quantised

_RECORD = re.compile(
    r"archive_format|archive_version|byteorder|version|\.data/(version|serialization_id)"
    r"|models/model\.json|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)|data/sample_inputs/model\.pt|extra/.*"
)
_PLAIN = re.compile(r"[\w.+\-]*")
_OPERATOR = re.compile(
    r"torch\.ops\.(aten|prims|torchvision)\.(?!from_file)(_?[a-z]\w*|__(and|or|xor)__)\.[A-Za-z]\w*"
    r"|torch\.ops\.higher_order\.(wrap_with_set_grad_enabled|wrap_with_autocast|cond)"
    r"|_operator\.(getitem|add|sub|mul|floordiv|truediv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt)|torch\.sym_(int|float|max|min|not|ite|sqrt)"
)
_STORED_TEXT = {
    *("stack_trace", "nn_module_stack", "torch_fn", "source_fn_stack", "from_node", "custom"),
    *("as_string", "as_strings"),
}
_TREE_TYPES = {None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"}
_SHAPE_NAME = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Max|Min|Mod|Eq|Ne|Lt|Le|Gt|Ge|And|Or|Not|Where|L|FloorDiv|CeilDiv"
    r"|CleanDiv|PythonMod|ModularIndexing|CeilToInt|FloorToInt|TruncToFloat|LShift|RShift|PowByNatural|FloatPow"
    r"|FloatTrueDiv|IntTrueDiv|[a-z]+\d+"
)
_SHAPE_NODES = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.BoolOp, ast.Compare, ast.Call, ast.keyword, ast.Constant),
    *(ast.Name, ast.Attribute, ast.Subscript, ast.Load, ast.operator, ast.unaryop, ast.boolop, ast.cmpop),
)
_SHAPE_ATTRIBUTES = {"size", "stride", "storage_offset", "shape", "dim"}


def vet_pt2(path: Path) -> None:
    """Raise InputError, naming what was found, unless the file holds a plain exported program and no code."""
    try:  # the reader that torch.export.load itself uses, so that both see the same contents
        from torch.export.pt2_archive._package import PT2ArchiveReader
    except ImportError:
        raise InputError(f"reading {path} safely needs torch 2.8 or later, this is {torch.__version__}") from None
    try:
        check_unpacked_size(path)
        with PT2ArchiveReader(str(path)) as archive:
            names = archive.get_file_names()
            for name in names:
                if not _RECORD.fullmatch(name):
                    refuse(path, f"the file {name!r}")
            if "models/model.json" not in names:
                raise InputError(f"{path} holds no exported program named 'model'")
            for part in ("weights", "constants"):
                _vet_tensors(json.loads(archive.read_bytes(f"data/{part}/model_{part}_config.json")), path)
            _vet_sample(archive.read_bytes("data/sample_inputs/model.pt"), path)
            _vet_program(json.loads(archive.read_bytes("models/model.json")), path)
    except InputError:
        raise
    except Exception as e:
        raise InputError(f"{path} is damaged or no .pt2 file: {first_line(e)}") from e


def refuse(path: Path, what: str) -> NoReturn:
    """Raise InputError for something in a file that could run code."""
    raise InputError(
        f"{path} holds {what}, which could run code when it is loaded or called; bre reads plain exported "
        "networks only. Allow that only for a file you trust",
        argument="unsafe",
    )


def _vet_tensors(config: Any, path: Path) -> None:
    for name, payload in config["config"].items():
        if payload["use_pickle"] is not False:
            refuse(path, f"a pickled tensor, {name!r}")
        device = payload["tensor_meta"]["device"]["type"]
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError(f"{path} was exported on {device}, which this machine lacks: export it from the CPU")
    for key, text in _strings(config):
        if not _PLAIN.fullmatch(text):
            refuse(path, f"the {key} {text!r}")


def _vet_sample(data: bytes, path: Path) -> None:
    if data:
        try:
            torch.load(io.BytesIO(data), weights_only=True, map_location="cpu")
        except Exception:
            refuse(path, "sample inputs that are more than tensors")


def _vet_program(program: Any, path: Path) -> None:
    for key, text in _strings(program):
        if key in _STORED_TEXT:
            continue
        if key in ("target", "as_operator"):
            ok, what = bool(_OPERATOR.fullmatch(text)), "operator"
        elif key in ("expr_str", "guards_code"):
            ok, what = _is_shape_arithmetic(text), "shape expression"
        elif key in ("in_spec", "out_spec"):
            ok, what = _is_plain_tree(text), "input or output structure"
        else:
            ok, what = bool(_PLAIN.fullmatch(text)), key
        if not ok and key == "target" and text.startswith("torch.ops.quantized"):
            refuse_quantised(path)
        if not ok:
            refuse(path, f"the {what} {text[:200]!r}")


def _strings(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Every string of a JSON value with the key it stands under; keys themselves stand under "key"."""
    if isinstance(value, dict):
        for k, v in value.items():
            yield "key", k
            yield from _strings(v, k)
    elif isinstance(value, list):
        for v in value:
            yield from _strings(v, key)
    elif isinstance(value, str):
        yield key, value


def _is_shape_arithmetic(text: str) -> bool:
    try:
        tree = ast.parse(text, mode="eval")
    except (SyntaxError, ValueError, RecursionError):
        return False
    for node in ast.walk(tree):
        if not isinstance(node, _SHAPE_NODES):
            return False
        if isinstance(node, ast.Name) and not _SHAPE_NAME.fullmatch(node.id):
            return False
        if isinstance(node, ast.Attribute) and node.attr not in _SHAPE_ATTRIBUTES:
            return False
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and not node.value.isidentifier():
            return False
    return True


def _is_plain_tree(text: str) -> bool:
    """A serialised pytree made of tuples, lists and dicts only; other kinds import modules when read."""
    if "__enum__" in text or "\\" in text.replace('\\"', ""):
        return False
    return all(key != "type" or kind in _TREE_TYPES for key, kind in _strings(json.loads(text)))
