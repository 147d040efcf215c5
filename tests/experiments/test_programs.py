"""What is run from the checkout on a finished run, and the one line of what it refuses."""

import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from contrastive_jax.errors import MissingExtraError, UsageError
from contrastive_jax.jobs.machine import storage
from experiments import embed, export, program
from tests.jobs.support import config, save_start


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a small ResNet before its first step."""
    workdir = tmp_path_factory.mktemp("programs") / "run"
    with jax.numpy_dtype_promotion("standard"):
        save_start(config(), workdir)
    return workdir


def test_embed(workdir, tmp_path, capsys):
    np.savez(tmp_path / "x.npz", image=np.zeros((5, 8, 8), np.uint8))
    out = tmp_path / "out.npz"
    embed.main([f"--workdir={workdir}", f"--source=npz:{tmp_path / 'x.npz'}", f"--out={out}", "--batch_size=4"])
    with np.load(out) as arrays:
        assert arrays["features"].shape == (5, 32) and arrays["projections"].shape == (5, 16)
    assert capsys.readouterr().out == (
        f"{out} holds the embeddings by Encoder(resnet10 of {workdir}, trained encoder, step 0).\n"
    )


@pytest.mark.parametrize("options", [[], ["--identity"]])
def test_export(options, workdir, tmp_path, capsys):
    out = tmp_path / "net.safetensors"
    export.main([f"--workdir={workdir}", f"--out={out}", *options])
    assert ("fc.weight" in safetensors.numpy.load_file(out)) == bool(options)
    said = capsys.readouterr().out
    assert "8 pixels, in [0, 1], less mean (0.5,), divided by std (0.5,)" in said
    assert "Before torchvision's class takes it: build torchvision.models.resnet.ResNet(BasicBlock" in said


@pytest.mark.parametrize("error", [UsageError("first\nsecond"), MissingExtraError("x needs y")])
def test_an_error_is_a_line_each_and_status_2(error, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["program", "--option"])
    monkeypatch.setattr(program.signal, "signal", lambda *_: None)
    monkeypatch.setattr(storage, "silence_repeated_errors", lambda: None)

    def fail(arguments):
        assert arguments == ["--option"]
        raise error

    with pytest.raises(SystemExit) as caught:
        program.run(fail)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "".join(f"error: {line}\n" for line in str(error).splitlines())
    with pytest.raises(SystemExit) as caught:
        program.run(lambda _: None)
    assert caught.value.code == 0
