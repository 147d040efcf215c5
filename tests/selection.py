"""Which tests are slow, besides those that are marked so where they are written (`@pytest.mark.slow`).

`pytest -m "not slow"` is for while one works: at most two minutes on two cores. It leaves out whole runs, and takes one
of the many forms of a contract (a mapping, a number of devices, an implementation, a dtype).
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHOLE_FILES = (
    "tests/experiments/reliability/test_chaos.py",
    "tests/experiments/test_studies.py",
    "tests/jobs/machine/test_processes.py",
    "tests/jobs/machine/test_storage.py",
    "tests/jobs/test_damage.py",
    "tests/jobs/test_nonfinite.py",
    "tests/jobs/test_run.py",
    "tests/losses/test_properties.py",
    "tests/test_docstrings.py",
    "tests/test_export.py",
    "tests/training/test_step.py",
)
TESTS = (
    "::test_second_derivatives_are_exact",
    "tests/pairwise/test_blockwise.py::test_equals_one_device_under_every_mapping",
    "tests/losses/test_values.py::test_gradients",
    "tests/test_readme.py::test_the_first_job",
)
# The forms that stay: `shard_map` on two or four devices, float32, blockwise; the authors' values in float64.
_FORMS = re.compile(
    r"\[.*\b(pmap|vmap|shard_map_unchecked|unchecked shard_map|shard_map-[18]|ring|float16|bfloat16)\b"
    r"|::test_authors_values\[.*float32"
)


def is_slow(nodeid: str) -> bool:
    """Whether the test of this id is left out by `-m "not slow"`."""
    return nodeid.startswith(WHOLE_FILES) or any(name in nodeid for name in TESTS) or bool(_FORMS.search(nodeid))
