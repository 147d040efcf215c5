"""The documentation's examples run, its commands are accepted, and the counts that it states are right."""

import ast
import importlib
import re
import shlex
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from PIL import Image

from contrastive_jax import losses, models
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs import parts, validation, weights, workdir
from contrastive_jax.jobs.fields import FIELDS
from contrastive_jax.jobs.sweeps import program
from tests.command_line import parse
from tests.jobs.support import QUICK, drawing, save_start
from tests.jobs.support import config as config_with
from tests.losses import table

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
OWN = ("own_encoder", "own_data", "own_loss", "parts")  # the pages whose examples are files of mylab
PARTS = "\n".join((DOCS / f"{page}.md").read_text() for page in OWN)
BLOCKS = re.findall(r"```python\n(.*?)```", PARTS, re.DOTALL)
FILES = {block.split("\n", 1)[0].removeprefix("# "): block for block in BLOCKS if block.startswith("# mylab/")}
EXAMPLES = [block for block in BLOCKS if block not in FILES.values()]


def commands_of(text):
    """Every `python -m experiments.train` line, with what is continued on the lines after it."""
    return re.findall(r"^python -m experiments\.train [^\n&]*", text.replace("\\\n", ""), re.MULTILINE)


PAGES = [path for path in sorted(DOCS.rglob("*.md")) if "_build" not in path.parts]
OTHERS = [
    pytest.param(command, id=f"{path.stem}-{k}")
    for path in PAGES
    for k, command in enumerate(commands_of(path.read_text()))
    if path.stem not in OWN
]


@pytest.fixture
def mylab(tmp_path, monkeypatch):
    """A working directory with the package that the pages write."""
    (tmp_path / "mylab").mkdir()
    for name, block in FILES.items():
        (tmp_path / name).write_text(block)
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(ROOT), *sys.path])
    monkeypatch.chdir(tmp_path)
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "mylab"]:
        del sys.modules[name]


def test_a_file_for_each_part():
    names = ("encoders", "regularized", "linen_encoders", "heads", "data", "losses", "optimizers", "logged")
    assert list(FILES) == [f"mylab/{name}.py" for name in names]
    assert len(EXAMPLES) == 2


@pytest.mark.slow
def test_a_run_of_all_parts_from_python(mylab):
    names = {}
    with drawing(False):
        exec(compile(EXAMPLES[0], "parts.md", "exec"), names)
    final = names["summary"]["final"]
    assert len(final["spectrum"]) == 16 and final["embedding_norm"] > 0
    assert names["config"].model.name == "resnet10"  # the caller's own is left as it was
    config = Path("runs/own/config.json").read_text()
    for part in ("encoders:SmallCNN", "heads:linear", "losses:hinge", "optimizers:lion", "logged:spectrum"):
        assert f'"mylab.{part}"' in config
    assert '"width": 8' in config


def test_a_step_of_ones_own_loop(mylab):
    names = {}
    exec(compile(EXAMPLES[1], "parts.md", "exec"), names)
    assert int(names["state"].step) == 3 and "hinge" in names["metrics"]


def small_unless_named(command):
    """The command with a small encoder where it names none: what it shows is another part."""
    return command if "model.name" in command else f"{command} --config.model.name=mlp"


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in commands_of(PARTS) if "folder:" in command])
def test_a_run_on_ones_own_images_can_start(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for k in range(300):
        for path in (f"photos/2023/{k}.png", f"labelled/{'ab'[k % 2]}/{k}.png"):
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (40, 30), (k % 256, 0, 0)).save(path)
    with jax.numpy_dtype_promotion("standard"):
        job = job_lib.prepare(
            parse(small_unless_named(command.replace("--config=", f"--config={ROOT}/")), tmp_path).config,
            tmp_path / "run",
        )
    assert (len(job.train), job.train.labels, len(job.test)) == (
        270,
        None,
        60 if "evaluation_source" in command else 30,
    )


@pytest.mark.slow
@pytest.mark.parametrize("command", [command for command in commands_of(PARTS) if "folder:" not in command])
def test_a_run_of_ones_own_part_can_start(command, mylab, tmp_path):
    preset = small_unless_named(command.replace("--config=", f"--config={ROOT}/"))
    job = job_lib.prepare(parse(preset, tmp_path / "run").config, tmp_path / "run")
    assert "mylab." in job.config.to_json() and job.num_steps > 0
    assert not (tmp_path / "run").exists()


def assert_is_accepted(command, workdir):
    config = parse(command, workdir).config
    validation.check(config, parts.resolve(config, parts.NONE), num_devices=2)


@pytest.mark.parametrize("command", OTHERS)
def test_commands_of_other_pages_are_accepted(command, tmp_path):
    assert_is_accepted(command, tmp_path)


def test_the_four_remedies_are_accepted(tmp_path):
    page = (DOCS / "estimators.md").read_text().replace("\\\n", "")
    (always,) = re.findall(r"^train\(\) \{ (python .*?) \"\$\{@:2\}\"; \}$", page, re.MULTILINE)
    runs = re.findall(r"^train (\w+)(.*)$", page, re.MULTILINE)
    assert len(runs) == 6
    for _, options in runs:
        assert_is_accepted(always + options, tmp_path)


ENCODER = (DOCS / "encoder.md").read_text()
WITHOUT_A_RUN = ("index", "analyze", "from_pytorch")  # the pages of whose examples all stand alone
EXAMPLES_ALONE = [
    pytest.param(code, id=f"{page}-{k}")
    for page in WITHOUT_A_RUN
    for k, code in enumerate(re.findall(r"```python\n(.*?)```", (DOCS / f"{page}.md").read_text(), re.DOTALL))
]


@pytest.mark.parametrize("code", EXAMPLES_ALONE)
def test_examples_that_stand_alone(code):
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        exec(compile(code, "page", "exec"), {})


@pytest.mark.parametrize(("page", "before"), [("reading", ""), ("from_pytorch", r"--config\.")])
def test_the_fields_that_a_page_names_exist(page, before):
    sections = "|".join({path.split(".")[0] for path in FIELDS if "." in path})
    named = re.findall(rf"`{before}((?:{sections})\.(?!png)\w+)", (DOCS / f"{page}.md").read_text())
    open_sections = {"loss.kwargs", "model.head_kwargs", "model.kwargs", "optimizer.kwargs"}  # a part's own arguments
    assert len(named) > 5 and set(named) <= FIELDS.keys() | open_sections


def test_the_losses_that_a_page_names_exist():
    named = re.findall(r"contrastive_jax\.losses\.(\w+)", (DOCS / "from_pytorch.md").read_text())
    assert len(named) > 5 and all(callable(getattr(losses, name)) for name in named)


def test_the_notebooks_that_the_pages_name_exist():
    named = {name for path in PAGES for name in re.findall(r"\{colab\}`(\w+)`", path.read_text())}
    assert named == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.fixture(scope="module")
def with_a_run(tmp_path_factory):
    """A working directory with the run and the files that docs/encoder.md names."""
    folder = tmp_path_factory.mktemp("encoder")
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), np.uint8)
    np.savez(folder / "images.npz", image=images, label=np.arange(60) % 3)
    with jax.numpy_dtype_promotion("standard"):
        save_start(config_with(**QUICK), folder / "runs" / "digits")
    return folder


def test_the_encoder_in_hand(with_a_run, monkeypatch):
    monkeypatch.chdir(with_a_run)
    commands = re.findall(r"^python -m experiments\.(embed|evaluate|export) (.*)$", ENCODER, re.MULTILINE)
    assert [name for name, _ in commands] == ["embed", "evaluate", "export"]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for name, arguments in commands:
            importlib.import_module(f"experiments.{name}").main(shlex.split(arguments))
        blocks = [block for block in re.findall(r"```python\n(.*?)```", ENCODER, re.DOTALL) if "torch" not in block]
        assert len(blocks) == 3
        for block in blocks:
            exec(compile(block, "encoder.md", "exec"), {})
    assert {"embeddings.npz", "encoder.safetensors"} <= {path.name for path in with_a_run.iterdir()}


def test_what_the_page_shows_in_pytorch(tmp_path, monkeypatch):
    torchvision, torch = pytest.importorskip("torchvision"), pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    torch.save(torchvision.models.resnet18().state_dict(), "resnet18.pth")
    out, back = (block for block in re.findall(r"```python\n(.*?)```", ENCODER, re.DOTALL) if "import torch" in block)
    exec(compile(back, "encoder.md", "exec"), {})
    encoder = models.ENCODERS["resnet18"]((32, 32, 3), stem="plain", rngs=nnx.Rngs(0))
    weights.load_into(encoder, "resnet18.safetensors")
    weights.write("resnet18.safetensors", models.to_torchvision(encoder), {})
    names = {}
    exec(compile(out, "encoder.md", "exec"), names)
    found = names["model"].state_dict()["conv1.weight"].numpy()
    np.testing.assert_array_equal(found, models.to_torchvision(encoder)["conv1.weight"])


@pytest.mark.parametrize("page", [ROOT / "README.md", DOCS / "sweeps.md"], ids=lambda page: page.stem)
def test_sweeps_are_accepted(page):
    found = re.findall(r"python -m experiments\.sweep (--[^\n]*)", page.read_text().replace("\\\n", ""))
    assert found
    for command in found:
        assert len(program.parse(shlex.split(command)).cells) == 18


def test_an_array_of_jobs_takes_one_cell_each():
    page = (DOCS / "sweeps.md").read_text().replace("\\\n", "")
    (count, inner) = re.findall(r"^sbatch --array=0-(\d+) .*--wrap '(.*?)'$", page, re.MULTILINE)[0]
    command = inner.split("experiments.sweep ")[1].replace("$SLURM_ARRAY_TASK_ID", count)
    options = program.parse(shlex.split(command))
    assert options.cell == int(count) == len(options.cells) - 1


def test_the_number_of_losses():
    (stated,) = re.findall(r"each of the (\d+) forms of `tests/losses/table.py`", (DOCS / "reliability.md").read_text())
    assert int(stated) == len(table.ROWS)


def test_the_fields_that_may_change():
    page = (DOCS / "many_devices.md").read_text()
    stated = set(re.findall(r"`([\w.]+)`", "".join(re.findall(r"^\| (`[\w.]+`.*?) \|", page, re.MULTILINE))))
    changeable = {path for path in FIELDS if workdir.may_differ(path, FIELDS)}
    assert changeable == {path for path in FIELDS if path in stated or path.startswith("evaluation.")}
    assert "`evaluation.*`" in page


def imports_of(folder):
    """The parts of the package that a folder, or a file, imports."""
    path = ROOT / "contrastive_jax" / folder
    found = set()
    for file in path.rglob("*.py") if path.is_dir() else [path]:
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.ImportFrom) and node.module == "contrastive_jax":
                found |= {name.name for name in node.names}
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("contrastive_jax."):
                found.add(node.module.split(".")[1])
    return found - {path.stem}


def test_imports_point_downwards_as_the_page_says():
    rows = re.findall(r"^\| (`.*?`) \| [^|]* \| (.*?) \|$", (DOCS / "architecture.md").read_text(), re.MULTILINE)
    allowed = {}
    for folders, may in rows:
        for folder in re.findall(r"`([\w./]+)`", folders):
            allowed[folder.rstrip("/")] = None if may == "everything below" else set(re.findall(r"`(\w+)`", may))
    package = {path.name for path in (ROOT / "contrastive_jax").iterdir() if re.match(r"[a-z]\w+(\.py)?$", path.name)}
    assert package - {"py.typed"} == {name for name in allowed if name not in ("experiments", "configs")}
    for name in package & {name for name, may in allowed.items() if may is not None}:
        assert imports_of(name) <= allowed[name] | {"errors", "extras"}, name
