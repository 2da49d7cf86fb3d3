import enum

class Dtype(enum.Enum):
    f32 = ...
    bf16 = ...
    f16 = ...

class Layout(enum.Enum):
    nchw = ...
    nhwc = ...

architectures: str

def device_count() -> int: ...
def capability(device: int) -> int: ...
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
    device: int,
    stream: int,
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
    device: int,
    stream: int,
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
    gradient: int,
    norms: int,
    device: int,
    stream: int,
) -> None: ...
def moments(
    *,
    images: int,
    M: int,
    D: int,
    order: int,
    offsets: int,
    K: int,
    count: int,
    sum: int,
    second: int,
    device: int,
    stream: int,
) -> None: ...
def project(
    *,
    images: int,
    M: int,
    D: int,
    templates: int,
    P: int,
    out: int,
    device: int,
    stream: int,
) -> None: ...
