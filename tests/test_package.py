"""What the package as a whole promises: parts on demand, three dependencies, extras that name themselves."""

import fnmatch
import importlib.metadata
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import contrastive_jax

ROOT = Path(__file__).parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PARTS = (
    "data",
    "errors",
    "evaluation",
    "jobs",
    "losses",
    "metrics",
    "models",
    "pairwise",
    "spmd",
    "theory",
    "training",
)
HEAVY = ("absl", "flax", "grain", "matplotlib", "ml_collections", "optax", "orbax", "PIL", "sklearn", "tensorboardX")
INSTALL = {name: f'pip install "contrastive_jax[{name}]"' for name in PYPROJECT["project"]["optional-dependencies"]}
BLOCK = """
import sys

class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] in {names!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Missing)
"""


def run(code, without=()):
    """The code in a process of its own, where some packages are as if they were not installed."""
    code = BLOCK.format(names=tuple(without)) + code
    return subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)


def loaded_by(code):
    """The top-level modules that the code leaves imported."""
    done = run(f"{code}\nimport sys\nprint(*(name for name in sys.modules if '.' not in name))")
    assert done.returncode == 0, done.stderr
    return set(done.stdout.split())


def test_parts_are_imported_when_they_are_used():
    assert {"jax", "numpy", *HEAVY} & loaded_by("import contrastive_jax; dir(contrastive_jax)") == set()
    loaded = loaded_by("import contrastive_jax; contrastive_jax.losses.simclr")
    assert "jax" in loaded and {"scipy", "tensorflow", *HEAVY} & loaded == set()


@pytest.mark.parametrize("part", PARTS)
def test_every_part_is_an_attribute(part):
    assert getattr(contrastive_jax, part).__name__ == f"contrastive_jax.{part}"
    assert part in dir(contrastive_jax)


def test_the_function_that_loads_is_there():
    assert "load" in dir(contrastive_jax) and contrastive_jax.load.__module__ == "contrastive_jax.jobs.loading"


def test_what_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="module 'contrastive_jax' has no attribute 'loses'"):
        _ = contrastive_jax.loses


FUNCTIONS = """
import jax
import contrastive_jax
from contrastive_jax import losses, metrics, pairwise, spmd, theory
u, v = jax.random.normal(jax.random.key(0), (2, 8, 4))
print(jax.grad(lambda u: losses.dhel(u, v).mean())(u).shape)
"""


def test_functions_need_jax_numpy_and_scipy_alone():
    installed = set(importlib.metadata.packages_distributions())
    needed = {"contrastive_jax", "jax", "jaxlib", "numpy", "scipy", "ml_dtypes", "opt_einsum"}
    done = run(FUNCTIONS, without=installed - needed - set(sys.stdlib_module_names))
    assert done.returncode == 0, done.stderr
    assert done.stdout == "(8, 4)\n"


@pytest.mark.parametrize(
    ("statement", "without", "wanted"),
    [
        ("import contrastive_jax.models", ["flax"], "contrastive_jax.models needs flax: {train}"),
        ("import contrastive_jax; contrastive_jax.models", ["flax"], "contrastive_jax.models needs flax: {train}"),
        ("from contrastive_jax import evaluation", ["optax"], "contrastive_jax.evaluation needs optax: {train}"),
        ("from contrastive_jax.training import step", ["optax"], "contrastive_jax.training needs optax: {train}"),
        (
            "from contrastive_jax.jobs import run",
            ["orbax", "PIL", "ml_collections"],
            "contrastive_jax.jobs needs pillow, ml-collections, orbax-checkpoint: {train}",
        ),
    ],
)
def test_a_missing_extra_names_itself(statement, without, wanted):
    done = run(statement, without)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"contrastive_jax.errors.MissingExtraError: {wanted.format(**INSTALL)}"


@pytest.mark.parametrize(
    ("program", "without", "wanted"),
    [
        ("experiments.train", "grain", "contrastive_jax.jobs needs grain: {train}"),
        ("experiments.studies", "threadpoolctl", "experiments.studies needs threadpoolctl: {studies}"),
        ("experiments.studies.optima", "optax", "experiments.studies needs optax: {studies}"),
        ("experiments.benchmarks.losses", "psutil", "experiments.benchmarks needs psutil: {bench}"),
        ("experiments.reliability.chaos", "flax", "experiments.reliability needs flax: {bench}"),
    ],
)
def test_a_program_without_its_extra_says_so_in_one_line(program, without, wanted):
    done = run(f"import runpy; runpy.run_module({program!r}, run_name='__main__')", [without])
    assert done.returncode == 1
    assert done.stderr == f"error: {wanted.format(**INSTALL)}\n" and done.stdout == ""


def test_the_wheel_holds_the_package_alone():
    """Built and listed by .ci/wheel; here by the patterns that setuptools goes by."""
    (pattern,) = PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    packages = {path.parent.relative_to(ROOT) for path in ROOT.glob("[a-z]*/**/__init__.py")}
    found = {package for package in packages if fnmatch.fnmatch(".".join(package.parts), pattern)}
    assert found == {path.parent.relative_to(ROOT) for path in (ROOT / "contrastive_jax").rglob("*.py")}
    assert (ROOT / "contrastive_jax" / "py.typed").exists()
    assert PYPROJECT["tool"]["setuptools"]["package-data"] == {"contrastive_jax": ["py.typed"]}


def test_no_bound_is_newer_than_jax_0_7_needs():
    """Those of JAX 0.7.0 itself, so that installing the package moves nobody's JAX, NumPy or SciPy."""
    lines = [Requirement(line) for line in PYPROJECT["project"]["dependencies"]]
    assert {canonicalize_name(line.name) for line in lines} == {"jax", "numpy", "scipy"}
    versions = {"jax": "0.7.0", "numpy": "1.26.0", "scipy": "1.12.0"}
    for line in lines:
        if line.marker is None or line.marker.evaluate({"python_version": "3.11"}):
            assert line.specifier.contains(versions[line.name]), line
