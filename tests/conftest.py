"""Every test runs strictly: eight CPU devices, no silent promotion of dtypes or ranks, warnings are errors.

It needs JAX, pytest and Hypothesis alone, so that the functions can be tested where nothing else is installed.
"""

import functools
import gc
import importlib.metadata
import os
import re
import tempfile

_JAXLIB = tuple(map(int, re.findall(r"\d+", importlib.metadata.version("jaxlib"))[:2]))
_FLAGS = ["--xla_force_host_platform_device_count=8"]
if _JAXLIB < (0, 12):  # later ones do not know the first, and XLA ends a process for a flag that it does not know
    # They halve the time that XLA takes to compile for CPUs, of which most of a test consists.
    _FLAGS += ["--xla_cpu_use_fusion_emitters=false", "--xla_cpu_parallel_codegen_split_count=1"]
# All by environment variables, so that the processes that tests start have them too.
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *_FLAGS])
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")  # of XLA, to compile faster
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    # Many tests compile the same program: one cache for all workers of this session.
    _CACHE = tempfile.TemporaryDirectory(prefix="contrastive_jax_tests_", ignore_cleanup_errors=True)
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import hypothesis
import jax
import pytest

from contrastive_jax import jax_versions
from tests import selection

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")

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


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """As many workers as cores, where pytest-xdist is installed and nothing else is asked for (`-n 0` for none)."""
    is_worker = hasattr(config, "workerinput")
    if not is_worker and config.getoption("numprocesses", 0) is None and not config.option.usepdb:
        config.option.numprocesses = "logical"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """The tests of a file that shares a run go to one worker, every other test to the next that is free.

    The mark `xdist_group` ought to do this, but with pytest 9.2 pytest-xdist 3.8 takes no notice of it.
    """
    from xdist.scheduler import LoadScopeScheduling

    @functools.cache
    def shares(file):
        return 'scope="module"' in (config.rootpath / file).read_text()

    class Scheduling(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            file = nodeid.split("::")[0]
            return file if shares(file) else nodeid

    return Scheduling(config, log)


COLLECTED = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config, items):
    """Mark what is slow. It goes first, so that no worker is left alone with it at the end."""
    config.stash[COLLECTED] = [item.nodeid for item in items]
    for item in items:
        if selection.is_slow(item.nodeid):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_collection_finish():
    """Collect garbage seldom: tracing makes many objects that last, and each search goes through all of them."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 20)


@pytest.fixture
def x64():
    """Run one test in float64."""
    with jax_versions.enable_x64():
        yield
