"""Each study, on its smallest scale, finds what theory predicts and leaves its picture."""

from pathlib import Path

import pytest

from experiments.studies import __main__ as every
from experiments.studies import study


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
