"""Every test runs strictly: eight CPU devices, no silent promotion of dtypes or ranks, warnings are errors."""

import os
import tempfile

# The second flag halves the time that XLA takes to compile for CPUs, of which most of a test consists.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=8"
    + " --xla_cpu_use_fusion_emitters=false"
)
os.environ.setdefault("JAX_PLATFORMS", "cpu")
# Many tests compile the same program: one cache for all workers of this session.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", tempfile.mkdtemp(prefix="contrastive_jax_tests_"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.5")

import hypothesis
import jax
import pytest

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_disable_most_optimizations", True)  # of XLA, likewise

# Each example compiles: by default few, always the same ones, and none made smaller when it fails; many new ones with
# HYPOTHESIS_PROFILE=thorough.
_ALWAYS = {
    "deadline": None,
    "database": None,
    "suppress_health_check": [hypothesis.HealthCheck.too_slow, hypothesis.HealthCheck.differing_executors],
}
_GENERATE = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
hypothesis.settings.register_profile("quick", max_examples=4, derandomize=True, phases=_GENERATE, **_ALWAYS)
hypothesis.settings.register_profile("thorough", max_examples=100, print_blob=True, **_ALWAYS)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))

SHARED_RUNS = ("tests/jobs/test_run.py", "tests/training/test_step.py", "tests/jobs/test_damage.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file that shares a run go to one worker, every other test to the next that is free.

    The mark `xdist_group` ought to do this, but with pytest 9.2 pytest-xdist 3.8 takes no notice of it.
    """
    from xdist.scheduler import LoadScopeScheduling

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return file if file in SHARED_RUNS else nodeid

    return Scheduling(config, log)


def pytest_collection_modifyitems(items):
    """What takes longest goes first, so that no worker is left alone with it at the end."""
    whole_runs = (
        "tests/experiments/reliability/test_chaos.py",
        "tests/jobs/machine/test_processes.py",
        "tests/jobs/machine/test_storage.py",
    )
    items.sort(key=lambda item: not item.nodeid.startswith((*whole_runs, *SHARED_RUNS)))


@pytest.fixture
def x64():
    """Run one test in float64."""
    with jax.enable_x64(True):
        yield
