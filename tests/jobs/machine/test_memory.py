"""Memory that a step frees stays with the process, on a CPU."""

import subprocess
import sys

import jax
import pytest

from contrastive_jax.jobs.machine import memory

# Page faults of one step with temporaries of some 64 MB, taken on the thread that XLA runs it on.
COUNT_FAULTS = """
import resource, sys
import jax, jax.numpy as jnp
from contrastive_jax.jobs.machine import memory

if "keep" in sys.argv:
    assert memory.keep_freed_memory()
step = jax.jit(lambda x: jnp.sort(jnp.sin(x[:, None] + x), axis=0).sum())
x = jnp.arange(2048.0)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def count_faults(*arguments):
    done = subprocess.run([sys.executable, "-c", COUNT_FAULTS, *arguments], check=True, capture_output=True, text=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="settings of glibc")
def test_a_step_reuses_the_memory_of_the_last_one():
    assert count_faults() > 2000
    assert count_faults("keep") < 200


def test_nothing_is_set_on_accelerators_or_other_systems(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert memory.keep_freed_memory() is False
    monkeypatch.undo()
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.keep_freed_memory() is False
