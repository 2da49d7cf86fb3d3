"""bre: backdoor reverse engineering. Was an image training set poisoned; which images, which class, what pattern?"""

from .cleanse import Removed, cleanse, removed
from .detect import detect
from .errors import BackendUnavailable, BreError, InputError
from .report import ClassRow, Cost, Finding, Report
from .screen import screen

__version__ = "0.1.0"

__all__ = [
    "BackendUnavailable",
    "BreError",
    "ClassRow",
    "Cost",
    "Finding",
    "InputError",
    "Removed",
    "Report",
    "cleanse",
    "detect",
    "removed",
    "screen",
]
