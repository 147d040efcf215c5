"""The fast tests leave out what is slow, and nothing else."""

import re

import pytest

from tests import conftest, selection
from tests.losses.table import ROWS

LOSS = "tests/losses/test_%s"
GRADIENT = LOSS % "devices.py::test_loss_and_embedding_gradients_equal_the_single_device_ones"
EDGES = LOSS % "edges.py::test_finite_and_right_at_the_edges"


@pytest.mark.parametrize(
    "nodeid",
    [
        "tests/jobs/test_run.py::test_leaves_everything",
        f"{GRADIENT}[simclr-pmap-2]",
        f"{GRADIENT}[simclr-shard_map_unchecked-2]",
        f"{GRADIENT}[simclr-shard_map-8]",
        "tests/losses/test_any.py::test_same[simclr-ring]",
        "tests/losses/test_any.py::test_same[kcl_imq]",
        f"{EDGES}[dcl-8-bfloat16]",
        "tests/losses/test_values.py::test_authors_values[dcl-1-m16-float32-1e-05]",
        "tests/pairwise/test_ring.py::test_equals_one_device[six devices]",
    ],
)
def test_slow(nodeid):
    assert selection.is_slow(nodeid)


@pytest.mark.parametrize(
    "nodeid",
    [
        f"{GRADIENT}[simclr-shard_map-2]",
        "tests/losses/test_any.py::test_same[simclr-blockwise]",
        "tests/losses/test_any.py::test_same[kcl_gaussian]",
        f"{EDGES}[dcl-8-float32]",
        "tests/losses/test_values.py::test_oracle[kcl_imq-33-17]",
        "tests/losses/test_values.py::test_authors_values[dcl-1-m16-float64-1e-10]",
        "tests/data/test_sources.py::test_string[a]",
    ],
)
def test_fast(nodeid):
    assert not selection.is_slow(nodeid)


def collected(request, test):
    """The fast forms of a test; None where this session was not given it whole."""
    forms = [name for name in request.config.stash[conftest.COLLECTED] if name.partition("[")[0] == test]
    return [name for name in forms if not selection.is_slow(name)] if forms else None


@pytest.mark.parametrize("test", selection.FORMS)
def test_a_form_of_each_test_stays(test, request):
    assert collected(request, test) != []


@pytest.mark.parametrize("test", [GRADIENT, EDGES, LOSS % "values.py::test_oracle"])
def test_every_loss_stays(test, request):
    if (forms := collected(request, test)) is not None:
        rows = {re.search(r"\[(\w+)", form)[1] for form in forms}
        assert {ROWS[row].loss for row in rows} == {row.loss for row in ROWS.values()}
        assert rows >= {name for name, row in ROWS.items() if not row.variant}


def test_the_authors_values_stay(request):
    if (forms := collected(request, LOSS % "values.py::test_authors_values")) is not None:
        assert len(forms) == 14


def test_what_is_named_exists():
    """A file that moves takes its name along."""
    for name in selection.WHOLE_FILES:
        assert (selection.ROOT / name).is_file(), name
    for name in (*selection.TESTS, *selection.FORMS):
        file, _, test = name.partition("::")
        files = [selection.ROOT / file] if file else (selection.ROOT / "tests").rglob("test_*.py")
        assert any(f"def {test}(" in path.read_text() for path in files), name
