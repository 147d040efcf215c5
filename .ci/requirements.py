"""What pip is to install, from pyproject.toml and requirements.lock, for the scripts beside this one.

python .ci/requirements.py oldest             the lowest version that each dependency's bound allows
python .ci/requirements.py locked NAME...     the locked version of each
python .ci/requirements.py constraints        every locked version, without its digests
"""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def find_oldest() -> list[str]:
    """`name==version` of each dependency; of several lines on one, the last that holds for this Python."""
    from packaging.requirements import Requirement

    found = {}
    for line in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        wanted = Requirement(line)
        if wanted.marker is None or wanted.marker.evaluate():
            (bound,) = wanted.specifier
            assert bound.operator == ">=", line
            found[wanted.name] = bound.version
    return [f"{name}=={version}" for name, version in found.items()]


def find_locked() -> list[str]:
    """`name==version`, with its marker where it has one."""
    return re.findall(r"^([\w.-]+==[^\s;]+(?: ; .+?)?) \\$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)


if __name__ == "__main__":
    what, *names = sys.argv[1:]
    if what == "oldest":
        print(*find_oldest())
    elif what == "locked":
        print(*(line for line in find_locked() if line.partition("==")[0] in names))
    elif what == "constraints":
        print(*find_locked(), sep="\n")
    else:
        sys.exit(__doc__)
