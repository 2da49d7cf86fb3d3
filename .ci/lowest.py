"""The lowest versions that pyproject.toml allows, one `name==version` a line: of the package and of the extras named.

    python .ci/lowest.py [EXTRA ...]

A bound like `pydantic>=2` becomes `pydantic==2`, which pip reads as 2.0.0; a requirement of another system is left out.
"""

from __future__ import annotations

import platform
import re
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
FORM = re.compile(r"(?P<name>[\w.-]+)>=(?P<version>[\w.]+)(?:; platform_system == '(?P<system>\w+)')?")


def main(extras: list[str]) -> None:
    project = tomllib.loads(PROJECT.read_text())["project"]
    wanted = [*project["dependencies"], *(line for name in extras for line in project["optional-dependencies"][name])]
    lowest: dict[str, str] = {}
    for line in wanted:
        found = FORM.fullmatch(line)
        if not found:
            sys.exit(f"{line}: expected NAME>=VERSION")
        if found["system"] in (None, platform.system()):
            lowest[found["name"]] = found["version"]
    print("\n".join(f"{name}=={version}" for name, version in lowest.items()))


if __name__ == "__main__":
    main(sys.argv[1:])
