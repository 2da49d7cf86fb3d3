"""Progress on stderr: a bar for people at a terminal, a line for each stage in a log."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator

Progress = Callable[[str, float], None]
"""What the verbs take as `progress`: called with (stage, fraction of it done, in [0, 1])."""


@contextlib.contextmanager
def shown_progress(first: str, *, bar: bool = True, lines: bool = False) -> Iterator[Progress | None]:
    """Yield what the verbs take as `progress`, (stage, fraction of it in [0, 1]) -> None.

    bar: wanted where stderr is a terminal; until the first call it shows `first` without an end, and it is wiped away
    afterwards. lines: print each stage's name once where there is no bar. None where nobody would see anything.
    """
    import rich.progress as bars
    from rich.console import Console
    from rich.markup import escape

    console = Console(stderr=True)
    if not (bar and console.is_terminal):
        yield _lines(first) if lines else None
        return
    columns = (
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.TaskProgressColumn(),
        bars.TimeElapsedColumn(),
    )
    with bars.Progress(*columns, console=console, transient=True) as display:
        shown, task = first, display.add_task(escape(first), total=None)

        def progress(stage: str, fraction: float) -> None:
            nonlocal shown, task
            if stage != shown:
                display.remove_task(task)
                shown, task = stage, display.add_task(escape(stage), total=1.0)
            display.update(task, completed=fraction, total=1.0)

        yield progress


def _lines(first: str) -> Progress:
    last = None

    def progress(stage: str, fraction: float) -> None:
        nonlocal last
        if stage != last:
            last = stage
            with contextlib.suppress(OSError):  # a log that takes nothing does not end the work
                print(f"bre: {stage}", file=sys.stderr, flush=True)

    progress(first, 0.0)
    return progress
