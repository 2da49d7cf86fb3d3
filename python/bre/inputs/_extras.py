"""Libraries that bre does without until somebody opens the format they read."""

import importlib
from typing import Any

from ..errors import InputError


def need(module: str, extra: str, what: str) -> Any:
    """The imported module. Raises InputError, naming the extra of bre-engine to install, where it is missing.

    what: what it is needed for, as in "reading Parquet".
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as e:
        if e.name not in (module, package := module.split(".")[0]):
            raise InputError(f"{what} needs {module}, which cannot be imported here: {e}") from e
        raise InputError(f"{what} needs {package}, which is not installed: pip install 'bre-engine[{extra}]'") from None
    except Exception as e:
        raise InputError(
            f"{what} needs {module}, which cannot be imported here (was it built for another torch or numpy?): "
            f"{type(e).__name__}: {e}"
        ) from e
