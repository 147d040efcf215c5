"""requirements.lock holds a version of all that pyproject.toml asks for, and nothing but versions and digests."""

import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path("requirements.lock").read_text()
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
EXTRAS = ("bench", "docs", "test")
WANTED = [*PROJECT["dependencies"], *(line for name in EXTRAS for line in PROJECT["optional-dependencies"][name])]


def locked():
    """{name: versions}: one may be locked to several, for different platforms or Pythons."""
    found = {}
    for name, version in re.findall(r"^([\w.-]+)==([^\s;]+)", LOCK, re.MULTILINE):
        found.setdefault(canonicalize_name(name), []).append(version)
    return found


@pytest.mark.parametrize("line", WANTED)
def test_all_that_is_asked_for_is_locked(line):
    wanted = Requirement(line)
    versions = locked()[canonicalize_name(wanted.name)]
    assert all(wanted.specifier.contains(version) for version in versions)


def test_the_lock_holds_versions_and_digests_alone():
    for line in LOCK.splitlines():
        assert re.fullmatch(r"\s*#.*|[\w.-]+==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
    assert "://" not in LOCK


def test_the_readme_and_ci_install_it():
    install = "pip install -r requirements.lock && pip install --no-deps -e ."
    assert install in Path("README.md").read_text()
    assert "pip install -q -r requirements.lock" in Path(".ci/run").read_text()
