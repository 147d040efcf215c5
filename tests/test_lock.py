"""requirements.lock holds a version of all that pyproject.toml asks for, and nothing but versions and digests."""

import os
import re
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

LOCK = Path("requirements.lock").read_text()
PROJECT = tomllib.loads(Path("pyproject.toml").read_text())["project"]
EXTRAS = ("docs", "test")  # what CI needs, with all that they are built on
PYTHONS = ("3.11", "3.12", "3.13")


def collect_requirements(lines):
    """Those of other projects; an extra of this one stands for its own."""
    for wanted in map(Requirement, lines):
        if canonicalize_name(wanted.name) == canonicalize_name(PROJECT["name"]):
            for extra in wanted.extras:
                yield from collect_requirements(PROJECT["optional-dependencies"][extra])
        else:
            yield wanted


ASKED = [*PROJECT["dependencies"], *(line for extra in EXTRAS for line in PROJECT["optional-dependencies"][extra])]
WANTED = sorted({str(wanted): wanted for wanted in collect_requirements(ASKED)}.items())


def read_lock(python):
    """{name: version} on one Python, on Linux."""
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
    found = {}
    for line in re.findall(r"^[\w.-]+==[^\\]+", LOCK, re.MULTILINE):
        entry = Requirement(line.strip())
        if entry.marker is None or entry.marker.evaluate(environment):
            found[canonicalize_name(entry.name)] = str(entry.specifier).removeprefix("==")
    return found


@pytest.mark.parametrize("python", PYTHONS)
def test_all_that_is_asked_for_is_locked(python):
    versions = read_lock(python)
    for line, wanted in WANTED:
        if wanted.marker is None or wanted.marker.evaluate({"python_version": python}):
            assert wanted.specifier.contains(versions[canonicalize_name(wanted.name)]), line


def test_what_ci_needs_includes_every_extra_but_those_of_other_machines():
    names = {canonicalize_name(wanted.name) for _, wanted in WANTED}
    others = {"gpu", "tpu", "prepare"}
    extras = PROJECT["optional-dependencies"]
    for extra in extras.keys() - others:
        assert {canonicalize_name(wanted.name) for wanted in collect_requirements(extras[extra])} <= names, extra


def test_the_pythons_are_those_that_the_package_is_for():
    classifiers = [line for line in PROJECT["classifiers"] if re.search(r":: 3\.", line)]
    assert classifiers == [f"Programming Language :: Python :: {python}" for python in PYTHONS]
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"
    assert (
        f"python: [{', '.join(map(repr, PYTHONS))}]".replace("'", '"') in Path(".github/workflows/ci.yml").read_text()
    )


def test_the_lock_holds_versions_and_digests_alone():
    for line in LOCK.splitlines():
        assert re.fullmatch(r"\s*#.*|[\w.-]+==\S+( ; .+)? \\|    --hash=sha256:[0-9a-f]{64}( \\)?", line), line
    assert "://" not in LOCK


def test_the_readme_and_ci_install_it():
    install = "pip install -r requirements.lock && pip install --no-deps -e ."
    assert install in Path("README.md").read_text()
    assert "pip install -q -r requirements.lock\npip install -q --no-deps -e ." in Path(".ci/locked").read_text()


def test_ci_and_its_workflow_run_the_same_scripts():
    called = re.findall(r"^\./(\w+)$", Path(".ci/run").read_text(), re.MULTILINE)
    assert called == ["locked", "oldest", "wheel"]
    assert f"script: [{', '.join(sorted([*called, 'newest']))}]" in Path(".github/workflows/ci.yml").read_text()
    for script in [*called, "newest"]:
        assert os.access(f".ci/{script}", os.X_OK)
