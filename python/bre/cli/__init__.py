"""The command line. `main` is the program; `commands` holds what it can do.

Nothing but the standard library is imported here, so that from its first moments on the program ends as it says:
0 nothing found, 1 poisoning found, 2 could not answer, 128 + n stopped by signal n.
"""

from __future__ import annotations

import sys

from . import signals


def main() -> None:
    """The `bre` command."""
    status = 2
    try:
        signals.heed()
        signals.open_streams()
        from .commands import run

        status = run()
    except BaseException as e:  # while importing, or in a handler of errors
        number = signals.received()
        if isinstance(e, KeyboardInterrupt) or number:
            status = signals.interrupted(number)
        else:
            signals.tell(f"bre: error: {type(e).__name__}: {' '.join(str(e).split())[:500]}")
    sys.exit(status)
