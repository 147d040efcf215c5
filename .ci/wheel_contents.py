"""End with an error unless a wheel holds all of the package and nothing else."""

import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).parents[1]


def check(wheel: Path) -> None:
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "contrastive_jax").rglob("*.py")}
    own.add("contrastive_jax/py.typed")
    if held != own:
        sys.exit(f"{wheel.name}: missing {sorted(own - held)}, not of the package {sorted(held - own)}")
    print(f"{wheel.name}: {len(held)} files, all of the package")


if __name__ == "__main__":
    check(Path(sys.argv[1]))
