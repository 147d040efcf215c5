"""Files of weights: read where they are safe and whole, and a run that starts from one."""

import json
import pickle
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import contrastive_jax
from contrastive_jax import models
from contrastive_jax.errors import MissingExtraError, UsageError
from contrastive_jax.jobs import command_line, weights
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import job as job_lib
from tests.jobs.support import config, save_start, small


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A file of the smoke preset's ResNet with other weights and statistics."""
    path = tmp_path_factory.mktemp("weights") / "net.safetensors"
    save(path, seed=5)
    return path


def save(path, seed):
    encoder = models.create("resnet10", image_shape=(8, 8, 1), encoder_kwargs={"width": 4}, seed=seed).encoder
    rng = np.random.default_rng(seed)
    arrays = {
        name: (x + rng.uniform(0, 0.3, x.shape)).astype(np.float32) if "running" in name else x
        for name, x in models.to_torchvision(encoder).items()
    }
    weights.write(path, arrays | weights.make_identity(32), {"encoder": "resnet10", "mean": [0.5]})
    return arrays


def test_what_is_written_is_read(path):
    arrays = weights.read(path)
    assert {x.dtype.name for x in arrays.values()} == {"float32", "int64"} and "fc.weight" in arrays
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == {"format": "pt", "encoder": "resnet10", "mean": "[0.5]"}


class Trap:
    """What a pickle may hold: it runs when it is read."""

    def __reduce__(self):
        return pytest.fail, ("code ran",)


@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".pkl", ".ckpt", ".npz", ""])
def test_formats_that_can_run_code_are_not_opened(ending, tmp_path):
    path = tmp_path / f"net{ending}"
    path.write_bytes(pickle.dumps(Trap()))
    got = ending or "a name without an ending"
    with pytest.raises(
        UsageError, match=f"expected a .safetensors file, got {got}, and formats that can run code are "
    ):
        weights.read(path)
    with pytest.raises(
        UsageError, match=r"config.model.weights=.*never read. Convert it where you trust it: safetensors"
    ):
        job_lib.prepare(config(**{"model.weights": str(path)}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [pickle.dumps(Trap()), b"", b"\xff" * 64, None])
def test_a_file_that_is_not_whole_is_one_line(content, path, tmp_path):
    other = tmp_path / "net.safetensors"
    other.write_bytes(path.read_bytes()[:-100] if content is None else content)
    with pytest.raises(
        UsageError, match=r"net.safetensors: expected a whole .safetensors file, .*Fetch it again"
    ) as caught:
        weights.read(other)
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_another_dtype(tmp_path):
    with pytest.raises(UsageError, match=r"expected a .safetensors file, got none at this path"):
        weights.read(tmp_path / "none.safetensors")
    safetensors.numpy.save_file({"a": np.zeros(2, np.float16)}, tmp_path / "half.safetensors")
    with pytest.raises(UsageError, match=r"half.safetensors: a: expected float32 \(F32\), got F16"):
        weights.read(tmp_path / "half.safetensors")


def test_a_run_starts_from_a_file(path, tmp_path, capsys):
    given = config(**{"model.weights": str(path)})
    job = save_start(given, tmp_path / "run")
    assert f"{path}: left out fc.bias, fc.weight; took all other weights." in capsys.readouterr().err
    assert given.model.weights_sha256 is None  # the caller's own is left as it was
    recorded = json.loads((tmp_path / "run" / "config.json").read_text())["model"]
    assert recorded["weights"] == str(path) and recorded["weights_sha256"] == weights.digest(path)
    loaded = contrastive_jax.load(tmp_path / "run")
    expected, found = weights.read(path), models.to_torchvision(loaded.module.encoder)
    assert all(np.array_equal(expected[name], x) for name, x in found.items()) and len(found) > 60
    other = job_lib.prepare(config(), tmp_path / "other").initial
    heads = (state.params.model["head"] for state in (job.initial, other))
    assert all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, heads), strict=True))


def test_another_file_is_refused_where_the_run_goes_on(tmp_path):
    path, workdir = tmp_path / "net.safetensors", tmp_path / "run"
    save(path, seed=5)
    given = config(**{"model.weights": str(path)})
    save_start(given, workdir)
    save_start(given, workdir)  # the same file is the same run
    preset = command_line.read_preset(str(workdir / "config.json"))
    save(path, seed=6)
    with pytest.raises(
        UsageError, match=r"expected a run with the same configuration, got another: model.weights_sha256"
    ):
        save_start(given, workdir)
    with pytest.raises(UsageError, match=r"expected the file that the run began with \(SHA-256 \w{64}\), got another"):
        job_lib.prepare(preset, workdir)
    path.unlink()
    with pytest.raises(UsageError, match=r"config.model.weights=.*expected a file that can be read, got 'No such file"):
        job_lib.prepare(given, workdir)
    assert contrastive_jax.load(workdir).step == 0  # which the file is not needed for


def test_without_safetensors_the_extra_is_named(path, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "safetensors", None)  # as if it were not installed
    for call in (
        lambda: weights.read(path),
        lambda: job_lib.prepare(config(**{"model.weights": str(path)}), tmp_path / "run"),
    ):
        with pytest.raises(MissingExtraError, match=r'needs safetensors: pip install "contrastive_jax\[train\]"'):
            call()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model.kwargs.stem": "plain"}, "3x3: build the ResNet with stem='small'"),
        ({"model.kwargs.width": 8}, "width of 4: build the ResNet with width=4"),
        ({"model.name": "resnet18"}, r"got \d+ missing \(layer1.1.*Give the file of the same network"),
        ({"model.name": "vit_tiny"}, "expected a ResNet of this package"),
    ],
)
def test_a_file_of_another_network_is_one_line(fields, message, path, tmp_path):
    with pytest.raises(UsageError, match=message) as caught:
        job_lib.prepare(config(**{"model.weights": str(path)} | fields), tmp_path / "run")
    assert "config.model.weights: " in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_a_digest_alone_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"weights_sha256: expected none without config.model.weights"):
        job_lib.prepare(small(**{"model.weights_sha256": "0" * 64}), tmp_path)


def test_the_file_is_a_field_of_the_command_line(path):
    arguments = ["--config=configs/smoke.py", "--workdir=x", f"--config.model.weights={path}"]
    assert command_line.parse(arguments).config.model.weights == str(path)
    given = config_lib.default_config()
    assert given.model.weights is None and given.model.weights_sha256 is None


@pytest.mark.parametrize("identity", [False, True])
def test_an_encoder_writes_its_weights(identity, path, tmp_path):
    save_start(config(**{"model.weights": str(path)}), tmp_path / "run")
    encoder = contrastive_jax.load(tmp_path / "run")
    said = encoder.save_safetensors(tmp_path / "out.safetensors", identity=identity)
    assert "BasicBlock, [1, 1, 1, 1]" in said and "Conv2d(1, 4, 3, padding=1, bias=False)" in said
    arrays = weights.read(tmp_path / "out.safetensors")
    expected = {name: x for name, x in weights.read(path).items() if identity or not name.startswith("fc.")}
    assert arrays.keys() == expected.keys() and all(np.array_equal(arrays[name], x) for name, x in expected.items())
    with safetensors.safe_open(tmp_path / "out.safetensors", framework="np") as file:
        about = file.metadata()
    assert about["digest"] == encoder.digest and about["image_size"] == "8" and about["mean"] == "[0.5]"
    with pytest.raises(UsageError, match=r"out.pth: expected a .safetensors file, got .pth. Name it so"):
        encoder.save_safetensors(tmp_path / "out.pth")


def test_an_encoder_without_such_names_is_not_written(tmp_path):
    save_start(small(), tmp_path / "run")
    with pytest.raises(UsageError, match="expected a ResNet of this package"):
        contrastive_jax.load(tmp_path / "run").save_safetensors(tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
