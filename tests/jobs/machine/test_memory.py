"""The pages in which a step's arrays lie."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from contrastive_jax.jobs.machine import memory

# Prints its arguments, its number, the setting, and the page faults of a step with some 64 MB of temporaries.
SCRIPT = """
import os, resource, sys
from contrastive_jax.jobs.machine import memory

memory.restart_with_large_pages()
import jax, jax.numpy as jnp

step = jax.jit(lambda x: (jnp.sin(x[:, None] + x) @ x).sum())
x = jnp.arange(4096.0)
for _ in range(4):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    step(x).block_until_ready()
faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
print(*sys.argv[1:], os.getpid(), os.environ["GLIBC_TUNABLES"], faults)
"""
PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def run_script(tmp_path, tunables):
    (tmp_path / "script.py").write_text(SCRIPT)
    environment = {name: value for name, value in os.environ.items() if name != "GLIBC_TUNABLES"}
    command = [sys.executable, tmp_path / "script.py", "a b", "--c=d"]
    with subprocess.Popen(command, env=environment | tunables, stdout=subprocess.PIPE, text=True) as process:
        out, _ = process.communicate()
    assert process.returncode == 0
    *arguments, number, setting, faults = out.split()
    assert arguments == ["a", "b", "--c=d"] and int(number) == process.pid
    return setting, int(faults)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="a setting of glibc")
def test_a_step_has_fewer_page_faults(tmp_path):
    setting, many = run_script(tmp_path, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    assert setting == "glibc.malloc.hugetlb=0"  # what the user set is left alone
    setting, few = run_script(tmp_path, {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"})
    assert setting == "glibc.malloc.perturb=0:glibc.malloc.hugetlb=1"
    has_large_pages = PAGES.exists() and "[never]" not in PAGES.read_text()
    assert few < many / 5 if has_large_pages else few <= 2 * many


def test_other_systems_go_on(monkeypatch):
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    monkeypatch.setattr(sys, "platform", "darwin")
    assert memory.restart_with_large_pages() is None
