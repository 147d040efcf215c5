"""Each study, on its smallest scale, finds what theory predicts and leaves its picture."""

from pathlib import Path

import jax
import pytest
from matplotlib.figure import Figure

from experiments.studies import __main__ as every
from experiments.studies import study


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax promotes its step counts."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("name", every.STUDIES)
def test_study_finds_what_theory_predicts(name, tmp_path, capsys):
    assert study.main(name, every.STUDIES[name], ["--quick", f"--out={tmp_path}"]) == 0
    screen = capsys.readouterr()
    assert "as predicted: " in screen.out
    assert "NOT AS PREDICTED" not in screen.out
    assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / f"{name}.pdf").read_bytes().startswith(b"%PDF")


@pytest.mark.parametrize("name", every.STUDIES)
def test_study_has_a_page_with_its_command_and_picture_and_a_place_in_the_readme(name):
    command = f"python -m experiments.studies.{name}"
    page = Path(f"docs/studies/{name}.md").read_text()
    assert f"\n{command}\n" in page
    assert f"({name}.png)" in page
    assert Path(f"docs/studies/{name}.png").exists()
    assert f"studies/{name}\n" in Path("docs/index.md").read_text()
    assert f"`{command}`" in Path("README.md").read_text()


def found(error):
    def result(*, quick, seed):
        rows = [{"loss": "one", "seed": seed, "interval": (0.0, 0.123456)}, {"loss": "other", "seed": 3, "interval": 1}]
        return study.Result(rows, [study.Check("a claim", error, 1e-3)], Figure())

    return result


def test_a_prediction_that_fails_is_said_and_is_the_exit_status(tmp_path, capsys):
    assert study.main("mine", found(0.5), [f"--out={tmp_path}"]) == 1
    assert "NOT AS PREDICTED: a claim: 0.5 (at most 0.001)" in capsys.readouterr().out


def test_the_table_has_a_line_for_each_row(tmp_path, capsys):
    assert study.main("mine", found(0), [f"--out={tmp_path}", "--seed=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| loss  | seed | interval    |"
    assert lines[2] == "| one   | 7    | 0 to 0.1235 |"


def test_a_nan_is_not_as_predicted():
    assert not study.Check("a claim", float("nan"), 1.0).holds


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert study.main("mine", found(0), [f"--out={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
