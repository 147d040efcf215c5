"""The fast tests leave out what is slow, and nothing else."""

import pytest

from tests import selection


@pytest.mark.parametrize(
    "nodeid",
    [
        "tests/jobs/test_run.py::test_leaves_everything",
        "tests/losses/test_devices.py::test_gradient[simclr-pmap-2]",
        "tests/losses/test_devices.py::test_gradient[simclr-shard_map_unchecked-2]",
        "tests/losses/test_devices.py::test_gradient[simclr-shard_map-8]",
        "tests/losses/test_implementations.py::test_same[simclr-ring]",
        "tests/losses/test_edges.py::test_edges[dcl-8-bfloat16]",
        "tests/losses/test_values.py::test_authors_values[dcl-m4-float32]",
    ],
)
def test_slow(nodeid):
    assert selection.is_slow(nodeid)


@pytest.mark.parametrize(
    "nodeid",
    [
        "tests/losses/test_devices.py::test_gradient[simclr-shard_map-2]",
        "tests/losses/test_implementations.py::test_same[simclr-blockwise]",
        "tests/losses/test_edges.py::test_edges[dcl-8-float32]",
        "tests/losses/test_values.py::test_authors_values[dcl-m4-float64]",
        "tests/pairwise/test_ring.py::test_equals_one_device[total-2]",
        "tests/data/test_sources.py::test_string[a]",
    ],
)
def test_fast(nodeid):
    assert not selection.is_slow(nodeid)


def test_what_is_named_exists():
    """A file that moves takes its name along."""
    for name in selection.WHOLE_FILES:
        assert (selection.ROOT / name).is_file(), name
    for name in selection.TESTS:
        file, _, test = name.partition("::")
        files = [selection.ROOT / file] if file else (selection.ROOT / "tests").rglob("test_*.py")
        assert any(f"def {test}(" in path.read_text() for path in files), name
