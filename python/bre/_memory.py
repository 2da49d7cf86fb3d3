"""How much memory there is: the machine's, or what the control group of this process may use where that is less."""

import os
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup")
_LIMITS = ("memory.max", "memory/memory.limit_in_bytes", "memory.limit_in_bytes")  # of version 2, and of version 1


def memory_limit() -> int | None:
    """Bytes; None where the system does not say."""
    limits = [limit for limit in (_physical(), *_group_limits()) if limit]
    return min(limits, default=None)


def _physical() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every platform says
        return None


def _group_limits() -> list[int]:
    """Of the group of this process and of those that it lies in."""
    folders = [_GROUPS]
    for line in _text(Path("/proc/self/cgroup")).splitlines():
        number, _, name = [*line.split(":", 2), "", ""][:3]
        root = _GROUPS if number == "0" else _GROUPS / "memory"
        group = root / name.lstrip("/")
        folders += [group, *(up for up in group.parents if up.is_relative_to(root))]
    found = [_text(folder / name).strip() for folder in folders for name in _LIMITS]
    return [int(value) for value in found if value.isascii() and value.isdigit()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except OSError:
        return ""
