"""Work in pieces: what a task is (`work`), the loop over tasks (`run`), who runs them (`executors`), what they all need
(`contexts`), the folder that keeps what is done (`folder`), and its files, which are no pickles (`packing`).

A task is a plain function of a context (a dataset, opened) and a few arguments; its result's file has its name from
them. Nothing here knows images.
"""

from .folder import RunFolder
from .run import Run, opened_run
from .work import Work

__all__ = ["Run", "RunFolder", "Work", "opened_run"]
