"""Lee 2025's Table 1 from made-up runs, and the command of each scale."""

import csv
import itertools

import pytest

from contrastive_jax.jobs.sweeps import program, results
from experiments.papers import lee_table1, paper


def make_rows(effect):
    """Runs whose variance is 0.2 - m / 10,000, and with VRNS less by `effect`."""
    for m, weight, seed in itertools.product(lee_table1.SIZES, (0.0, 30.0), (2, 0, 1)):
        variance = 0.2 - m / 10_000 + seed / 1000 + seed * m / 1e6 - (effect + seed / 10_000 if weight else 0)
        yield {"batch_size": m, "vrns_weight": weight, "seed": seed, lee_table1.SAMPLE: 1.0, lee_table1.WHOLE: variance}


@pytest.mark.parametrize(("effect", "verdict"), [(0.05, "confirmed in 15 of 15"), (-0.05, "contradicted in 0 of 15")])
def test_the_table_and_its_claims(effect, verdict, tmp_path, monkeypatch, capsys):
    def main(arguments):
        cells = program.parse(arguments).cells
        assert len(cells) == 30 and cells[0].config.loss.kwargs.temperature == 0.2
        workdir = tmp_path / "lee_table1-minutes-runs"
        workdir.mkdir()
        rows = list(make_rows(effect))
        with open(workdir / results.RESULTS, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return 0

    monkeypatch.setattr(program, "main", main)
    assert paper.main("lee_table1", lee_table1.SCALES, lee_table1.make_table, [f"--out={tmp_path}"]) == 0
    said = capsys.readouterr().out
    assert f"VRNS lowers the variance of the negatives over the training set: {verdict} pairs" in said
    assert "lower at m = 512 than at 32: confirmed in 3 of 3 pairs, mean difference -0.0475" in said
    with open(tmp_path / "lee_table1-minutes.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["m"] for row in rows] == ["32", "64", "128", "256", "512"]
    assert rows[0]["SimCLR, whole set"] == "0.1978 ± 0.001" and rows[0]["SimCLR, paper"] == "0.1649"
    assert all((tmp_path / f"lee_table1-minutes.{suffix}").stat().st_size > 1000 for suffix in ("png", "pdf"))


def test_a_sweep_that_fails_is_a_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "main", lambda _: 1)
    assert paper.main("lee_table1", lee_table1.SCALES, lee_table1.make_table, [f"--out={tmp_path}"]) == 2
    assert "expected all runs to end, got status 1" in capsys.readouterr().err


@pytest.mark.parametrize("scale", lee_table1.SCALES)
def test_every_scale_is_a_sweep(scale, tmp_path):
    preset, fields, grid, engine = lee_table1.SCALES[scale]
    given = [f"--config.{path}={value}" for path, value in fields.items()]
    options = program.parse([f"--config={preset}", f"--workdir={tmp_path}", f"--grid={grid}", *given])
    assert len(options.cells) == 30 and engine in program.ENGINES


def test_few_or_scattered_pairs_decide_nothing():
    said = paper.describe_effect("It falls", [-1.0, 1.1, -0.9])
    assert said.startswith("It falls: not decidable at this size: right in 2 of 3 pairs")
