"""A progress bar on stderr, for people only."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator


@contextlib.contextmanager
def progress_bar(first: str, *, wanted: bool = True) -> Iterator[Callable[[str, float], None] | None]:
    """Yield what the verbs take as `progress`, (stage, fraction of it in [0, 1]) -> None.

    None where nobody would see the bar: not `wanted`, or stderr is no terminal. Until the first call the bar
    shows `first` without an end; it is wiped away afterwards.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    if not wanted or not console.is_terminal:
        yield None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        shown, task = first, bars.add_task(escape(first), total=None)

        def progress(stage: str, fraction: float) -> None:
            nonlocal shown, task
            if stage != shown:
                bars.remove_task(task)
                shown, task = stage, bars.add_task(escape(stage), total=1.0)
            bars.update(task, completed=fraction, total=1.0)

        yield progress
