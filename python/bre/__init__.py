"""bre: backdoor reverse engineering. Was an image training set poisoned; which images, which class, what pattern?"""

import importlib
from typing import TYPE_CHECKING, Any

from .errors import BackendUnavailable, BreError, InputError

if TYPE_CHECKING:
    from .inputs import open_dataset, open_model
    from .report import ClassRow, Cost, DatasetFacts, Finding, Histogram, Report, StatisticTest
    from .verbs.annotate import annotate
    from .verbs.cleanse import Removed, cleanse, removed
    from .verbs.detect import detect
    from .verbs.screen import screen
    from .verbs.sweep import SweepResult, sweep

__version__ = "0.2.0.dev0"

__all__ = [
    "BackendUnavailable",
    "BreError",
    "ClassRow",
    "Cost",
    "DatasetFacts",
    "Finding",
    "Histogram",
    "InputError",
    "Removed",
    "Report",
    "StatisticTest",
    "SweepResult",
    "annotate",
    "cleanse",
    "detect",
    "open_dataset",
    "open_model",
    "removed",
    "screen",
    "sweep",
]

# Modules that need torch take seconds to import: they are, when one of their names is first used.
_HOMES = {
    "inputs": ("open_dataset", "open_model"),
    "report": ("ClassRow", "Cost", "DatasetFacts", "Finding", "Histogram", "Report", "StatisticTest"),
    "verbs.annotate": ("annotate",),
    "verbs.cleanse": ("Removed", "cleanse", "removed"),
    "verbs.detect": ("detect",),
    "verbs.screen": ("screen",),
    "verbs.sweep": ("SweepResult", "sweep"),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            value = getattr(importlib.import_module(f".{module}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
