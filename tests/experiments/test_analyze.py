"""The program that puts embeddings under the lens: what it leaves, and one line for what is wrong."""

import json
import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax import metrics
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs.logs import analysis_pictures, progress
from experiments import analyze

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 3, 60)
U, V = (RNG.normal(size=(3, 6))[LABELS] + 0.5 * RNG.normal(size=(2, 60, 6))).astype(np.float32)
FILES = {"analysis.png", "analysis.md", "analysis.json"}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def run(*arguments):
    analyze.main([*arguments, "--out=out"])
    assert {path.name for path in Path("out").iterdir()} == FILES
    assert Path("out/analysis.png").read_bytes().startswith(b"\x89PNG")
    return json.loads(Path("out/analysis.json").read_text())


def test_pairs_with_labels_and_faults(capsys):
    u, v = U.copy(), V.copy()
    u[4], v[5, 0], u[11] = 0, np.nan, u[9]
    np.savez("pairs.npz", u=u, v=v, labels=LABELS)
    found = run("pairs.npz", "--names=images,texts", "--contrast_size=4", "--hardest=7")
    want = metrics.analyze(u, v, labels=LABELS)
    assert found["similarities"]["cross_view"]["variance"] == want.cross_view.variance
    assert sum(found["similarities"]["cross_view"]["counts"]) == 58 * 57
    assert found["views"]["images"]["zero"] == {"number": 1, "first": [4]}
    assert found["views"]["texts"]["not_finite"] == {"number": 1, "first": [5]}
    assert found["views"]["images"]["repeated"] == {"number": 1, "first": [[11, 9]]}
    assert found["views"]["texts"]["spectrum"] == want.v.spectrum.tolist()
    assert found["views"]["texts"]["classes"]["within"] == want.v.classes.within.tolist()
    hardest = found["hardest_negatives"]
    assert len(hardest) == 7 and hardest[0]["similarity"] == want.hardest.similarity.max()
    assert hardest[0]["labels"] == LABELS[hardest[0]["rows"]].tolist()
    screen = capsys.readouterr()
    assert "58 of them usable" in screen.out and "| zero | 1 (4) | 0 |" in screen.out and "1 (11=9)" in screen.out
    assert "Lee 2025, Theorem 5.5, m = 4" in screen.out and "uniformity of texts" in screen.out
    assert Path("out/analysis.md").read_text() in screen.out
    assert "Rows read: 60 in" in screen.err


def test_two_files_without_labels_sampled():
    np.save("u.npy", U.astype(np.float16))
    np.save("v.npy", V.astype(np.float64))
    found = run(
        "u.npy", "v.npy", "--exact_rows=20", "--num_blocks=4", "--block_rows=15", "--num_anchors=10", "--seed=2"
    )
    assert found["sampling"] == {"exact_rows": 20, "num_blocks": 4, "block_rows": 15, "num_anchors": 10, "seed": 2}
    assert max(found["similarities"]["cross_view"]["standard_error"]) > 0
    assert found["views"]["u"]["classes"] is None
    assert "4 random blocks of 15 rows" in Path("out/analysis.md").read_text()


def test_one_array_with_labels_names_rows_of_the_file():
    np.savez("x.npz", x=np.concatenate([U, U[:1]]), labels=np.append(LABELS, 9))
    found = run("x.npz", "--pairs=labels")
    assert (found["rows"], found["without_partner"], found["instances"]) == (60, 1, 3)
    unit = U.astype(np.float64) / np.linalg.norm(U.astype(np.float64), axis=1, keepdims=True)
    for row in found["hardest_negatives"]:
        i, j = row["rows"]
        assert (
            row["similarity"] == pytest.approx(unit[i] @ unit[j], abs=1e-12)
            and row["labels"] == LABELS[[i, j]].tolist()
        )
        assert "ids" not in row
    negative = LABELS[:, None] != LABELS[None, :]
    assert found["similarities"]["cross_view"]["mean"] == pytest.approx((unit @ unit.T)[negative].mean(), abs=1e-12)


@pytest.mark.parametrize("kind", ["collapsed", "one instance", "dollars", "many classes", "wide norms", "great norms"])
def test_every_picture_can_be_drawn(kind):
    u, v, labels, ids = U, V, None, None
    if kind == "collapsed":
        u = v = np.ones((60, 6), np.float32)
    elif kind == "one instance":
        ids = np.zeros(60, int)
    elif kind == "dollars":
        labels = np.array(["$x_$", "$\\frac$", "plain"])[LABELS]
    elif kind == "many classes":
        labels = np.arange(60) % 40
    elif kind == "great norms":
        u = 1e300 * u.astype(np.float64)
        v = u
    else:
        u = u * np.geomspace(1e-6, 1e6, 60, dtype=np.float32)[:, None]
    np.savez("pairs.npz", u=u, v=v, **{k: x for k, x in {"labels": labels, "ids": ids}.items() if x is not None})
    run("pairs.npz", "--names=$u_$,$\\v$")


def test_no_line_is_drawn_between_means_that_are_equal():
    """The same rows in another order: their means differ by rounding, whose direction says nothing."""
    from matplotlib.figure import Figure

    for v, title, lines in ((U[::-1], "No gap between the means", 0), (V, "Gap between the means: ", 4)):
        axes = Figure().subplots()
        analysis_pictures._draw_gap(axes, metrics.analyze(U, v), ("u", "v"))
        assert axes.get_title().startswith(title) and len(axes.patches) == lines


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["none.npz", "--out=out"], "none.npz: expected an .npz .*, got no such file"),
        (["pairs.npz"], "the following arguments are required: --out; see --help"),
        (["--out=out"], "the following arguments are required: files; see --help"),
        (["pairs.npz", "--out=out", "--pair=labels"], "unrecognized arguments: --pair=labels; see --help"),
        (["pairs.npz", "--out=out", "--pairs=rings"], "argument --pairs: invalid choice: 'rings'"),
        (["pairs.npz", "--out=out", "--names=a"], "--names: expected two different names, as in images,texts, got 'a'"),
        (["pairs.npz", "--out=out", "--names=a,"], "--names: expected two different names"),
        (["pairs.npz", "--out=out", "--names=a,a"], "--names: expected two different names"),
        (["pairs.npz", "--out=out", "--contrast_size=61"], "--contrast_size: expected 2 to 60, .*, got 61"),
        (["pairs.npz", "--out=out", "--num_blocks=1"], "expected num_blocks of at least 2, got 1"),
        (["pairs.npz", "--out=out", "--seed=-1"], "expected --seed and --hardest of at least 0, got -1 and 20"),
        (["pairs.npz", "--out=pairs.npz/out"], "--out=pairs.npz/out: expected a folder that can be written"),
        (["flat.npz", "--out=out", "--contrast_size=2"], "--contrast_size: expected 2 to 0"),
        (["flat.npz", "--out=out"], r"expected u and v of the same shape \[n, d\], got \[\] and \[\]"),
        (["whole.npz", "--out=out"], "expected u of float16, float32 or float64, got int64"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message):
    np.savez("pairs.npz", u=U, v=V)
    np.savez("flat.npz", u=np.float32(1), v=np.float32(1))
    np.savez("whole.npz", u=U.astype(int), v=V)
    with pytest.raises(UsageError, match=message) as raised:
        analyze.main(arguments)
    assert "\n" not in str(raised.value) and not Path("out").exists()


ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", ROOT / "docs" / "analyze.md"]


def test_a_terminal_has_a_bar_for_each_stage(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    with progress.StageProgress({"rows": "Rows read"}) as shown:
        for stage, total in (("rows", 4), ("pairs", 2)):
            for done in range(1, total + 1):
                shown(stage, done, total)
    bars = re.findall(r"(\S[^\r\n]*?): 100%\|[^\r\n]*\| (\d)/(\d) ", capsys.readouterr().err)
    assert ("Rows read", "4", "4") in bars and ("pairs", "2", "2") in bars


def test_the_example_of_the_page():
    (code,) = re.findall(r"```python\n(.*?)```", PAGES[1].read_text(), re.DOTALL)
    names = {}
    exec(compile(code, "analyze.md", "exec"), names)
    assert names["found"].num_kept == 500 and names["rows"][0].theory == (1, 1)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_commands_of_the_pages_are_accepted(page):
    commands = re.findall(r"^python -m experiments\.analyze .*$", page.read_text(), re.MULTILINE)
    assert commands
    for command in commands:
        assert analyze.parse(shlex.split(command)[3:]).out
