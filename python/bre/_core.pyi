import enum

class Dtype(enum.Enum):
    f32 = ...
    bf16 = ...
    f16 = ...

class Layout(enum.Enum):
    nchw = ...
    nhwc = ...

def isas() -> list[str]: ...
def isa() -> str: ...
def use_isa(name: str, /) -> None: ...
def apply_pattern(
    *,
    images: int,
    C: int,
    A: int,
    index: int,
    sign: int,
    T: int,
    N: int,
    pattern: int,
    mean: int,
    std: int,
    layout: Layout,
    dtype: Dtype,
    out: int,
    threads: int,
) -> None: ...
def loss_head(
    *,
    logits: int,
    dtype: Dtype,
    target: int,
    sign: int,
    weight: int,
    T: int,
    N: int,
    K: int,
    loss: int,
    grad: int,
    success: int,
    threads: int,
) -> None: ...
def update_pattern(
    *,
    grad: int,
    dtype: Dtype,
    layout: Layout,
    images: int,
    C: int,
    A: int,
    index: int,
    sign: int,
    T: int,
    N: int,
    pattern: int,
    momentum: int,
    active: int,
    std: int,
    step: float,
    decay: float,
    bound: float,
    norms: int,
    threads: int,
) -> None: ...
def moments(*, images: int, M: int, D: int, labels: int, count: int, sum: int, second: int, threads: int) -> None: ...
def project(*, images: int, M: int, D: int, templates: int, P: int, out: int, threads: int) -> None: ...
