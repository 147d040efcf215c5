"""End with an error unless a wheel holds all of the package and nothing else."""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def check(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "contrastive_jax").rglob("*.py")}
    missing = own | {"contrastive_jax/py.typed"} - held
    foreign = {name for name in held - own if not name.startswith("contrastive_jax-") and name != "contrastive_jax/py.typed"}
    missing -= held
    if missing or foreign:
        sys.exit(f"{wheel.name}: missing {sorted(missing)}, not of the package {sorted(foreign)}")
    print(f"{wheel.name}: {len(held)} files, all of the package")


if __name__ == "__main__":
    check(Path(sys.argv[1]))
