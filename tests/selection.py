"""Which tests are slow, besides those that are marked so where they are written (`@pytest.mark.slow`).

`pytest -m "not slow"` is for while one works: four minutes on two cores. It leaves out whole runs, and takes one
of the many forms of a contract (a mapping, a number of devices, an implementation, a dtype).
"""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
WHOLE_FILES = (
    "tests/experiments/benchmarks/test_benchmarks.py",
    "tests/experiments/reliability/test_chaos.py",
    "tests/experiments/studies/test_every_study.py",
    "tests/jobs/machine/test_processes.py",
    "tests/jobs/machine/test_storage.py",
    "tests/jobs/test_damage.py",
    "tests/jobs/test_nonfinite.py",
    "tests/jobs/test_parts.py",
    "tests/jobs/test_run.py",
    "tests/losses/test_properties.py",
    "tests/test_docstrings.py",
    "tests/test_export.py",
    "tests/training/test_step.py",
)
TESTS = (
    "::test_second_derivatives_are_exact",
    "tests/evaluation/test_linear_probe.py::test_converged_probe_agrees_with_scikit_learn",
    "tests/evaluation/test_linear_probe.py::test_tenfold_learning_rate_goes_as_far_in_a_tenth_of_the_steps",
    "tests/jobs/test_config.py::test_a_contrast_set_of_several_batches",
    "tests/jobs/test_config.py::test_every_preset_takes_a_step",
    "tests/jobs/test_config.py::test_other_losses_train_by_name",
    "tests/jobs/test_config.py::test_what_is_learnt_of_a_loss_is_logged_and_resumed",
    "tests/losses/test_devices.py::test_gradient_of_replicated_parameters",
    "tests/losses/test_implementations.py::test_memory_is_linear",
    "tests/losses/test_values.py::test_gradients",
    "tests/pairwise/test_blockwise.py::test_equals_one_device_under_every_mapping",
    "tests/test_explicit_axes.py::test_every_loss",
    "tests/test_readme.py::test_the_first_job",
    "tests/theory/test_info_nce.py::test_least_limit_is_the_energy_of_the_uniform_law",
    "tests/theory/test_info_nce.py::test_limit_is_that_of_large_batches",
    "tests/theory/test_info_nce.py::test_negative_gradient_moves_embeddings_as_the_loss_does",
    "tests/theory/test_minima.py::test_minimum_is_attained_and_not_undercut",
    "tests/training/test_create.py::test_devices_change_nothing",
    "tests/training/test_create.py::test_own_numbers_are_those_of_the_whole_batch",
    "tests/training/test_estimator.py::test_devices_and_pieces_change_nothing",
    "tests/training/test_gradient.py::test_a_loop_over_pieces_is_the_same_as_one_piece_after_the_other",
    "tests/training/test_gradient.py::test_any_number_of_devices_with_batch_normalisation",
    "tests/training/test_gradient.py::test_pieces_give_the_gradient_of_the_whole",
)
# The forms that stay: `shard_map` on two or four devices, float32, blockwise; the authors' values in float64.
_FORMS = re.compile(
    r"\[.*\b(pmap|vmap|shard_map_unchecked|unchecked shard_map|shard_map-[18]|ring|float16|bfloat16)\b"
    r"|::test_authors_values\[.*float32"
)


def is_slow(nodeid: str) -> bool:
    """Whether the test of this id is left out by `-m "not slow"`."""
    return nodeid.startswith(WHOLE_FILES) or any(name in nodeid for name in TESTS) or bool(_FORMS.search(nodeid))
