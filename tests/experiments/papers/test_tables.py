"""Every table of the papers from made-up runs, and the sweeps of each scale."""

import argparse
import csv
import json
import shlex
from pathlib import Path

import numpy as np
import pytest

from contrastive_jax.data import sources
from contrastive_jax.jobs.sweeps import program, results
from experiments.papers import __main__ as papers
from experiments.papers import (
    estimators,
    images,
    koromilas_figure3,
    koromilas_properties,
    lee_figure3,
    lee_figure4,
    lee_table1,
    lee_table4,
    paper,
    settings,
    vrns_weight,
)

RUNS = {  # of each table at each scale
    "lee_table1": {"minutes": 12, "cpu": 30, "paper": 30},
    "lee_figure4": {"minutes": 36, "cpu": 90, "paper": 90},
    "lee_figure3": {"minutes": 36, "cpu": 36, "paper": 36},
    "vrns_weight": {"minutes": 30, "cpu": 36, "paper": 120},
    "lee_table4": {"paper": 30},
    "koromilas_figure3": {"minutes": 120, "cpu": 180, "paper": 300},
    "koromilas_properties": {"minutes": 60, "cpu": 60, "paper": 60},
    "estimators": {"minutes": 18, "cpu": 18, "paper": 18},
}
COLUMNS = [
    *(paper.PROBE, paper.FEW_LABELS, paper.VARIANCE, lee_table1.SAMPLE),
    "whole_training_set_similarity.trained encoder.positive_mean",
    estimators.MEAN,
    *list(koromilas_properties.PROPERTIES.values())[:-1],
]


def variance(values):
    """0.2 - m / 10,000, and with VRNS less by 0.05; a little more for later seeds."""
    m, seed = values.get(paper.SIZE, 32), values[paper.SEED]
    return 0.2 - m / 10_000 + seed / 1000 + seed * m / 1e6 - (0.05 + seed / 10_000) * (values.get(paper.WEIGHT, 0) > 0)


def accuracy(values):
    """VRNS gains a tenth at m = 32, and nothing at m = 512; by temperature 0.5, and with VRNS less falls from it."""
    m, seed, weight = values.get(paper.SIZE, 32), values[paper.SEED], values.get(paper.WEIGHT, 0)
    fall = (0.02 if weight else 0.05) * values.get(paper.TEMPERATURE, 0)
    return 0.5 + seed / 100 + (0.1 + seed / 1000) * (32 / m - 32 / 512) * (weight > 0) - fall * (1 + seed / 10)


@pytest.fixture
def made_up(monkeypatch):
    """Sweeps that train nothing: their numbers are made up from the fields of the grid."""
    noise = np.random.default_rng(0)

    def main(arguments):
        options = program.parse(arguments)
        rows = []
        for cell in options.cells:
            numbers = {column: float(noise.uniform(0.4, 0.5)) for column in COLUMNS}
            numbers |= {paper.VARIANCE: variance(cell.values), paper.PROBE: accuracy(cell.values)}
            rows.append({"run": cell.name, **cell.values, **numbers})
            (options.workdir / cell.name).mkdir(parents=True, exist_ok=True)
            summary = {"seconds": 2.0, "environment": {"device": "abacus", "devices": 1, "versions": {"jax": "9.9"}}}
            (options.workdir / cell.name / results.SUMMARY).write_text(json.dumps(summary))
        with open(options.workdir / results.RESULTS, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
        return 0

    monkeypatch.setattr(program, "main", main)


def table(name):
    return next(found for found in papers.TABLES if found.name == name)


@pytest.mark.parametrize(("name", "scale"), [(name, scale) for name, counts in RUNS.items() for scale in counts])
def test_every_scale_is_sweeps(name, scale, tmp_path):
    sweeps = table(name).scales[scale]
    cells = [program.parse(sweep.arguments(tmp_path, workers=2)).cells for sweep in sweeps]
    assert sum(map(len, cells)) == RUNS[name][scale]
    assert all({cell.config.seed for cell in found} == {0, 1, 2} for found in cells)
    names = [sweep.name for sweep in sweeps]
    assert len(set(names)) == len(names)


def test_every_table_has_the_scales():
    assert {found.name: set(found.scales) for found in papers.TABLES} == {name: set(RUNS[name]) for name in RUNS}


@pytest.mark.parametrize(("scale", "runs"), [("minutes", 228), ("cpu", 348), ("paper", 594)])
def test_the_list_has_every_sweep_and_tables_share_runs(scale, runs, tmp_path, capsys):
    assert papers.main([f"--scale={scale}", f"--out={tmp_path}", "--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(set(lines)) == len(lines) and not list(tmp_path.iterdir())
    folders = set()
    for line in lines:
        command, _, count = line.rpartition("  # ")
        options = program.parse(shlex.split(command)[3:])
        assert count == f"{len(options.cells)} runs"
        folders |= {options.workdir / cell.name for cell in options.cells}
    assert len(folders) == runs


@pytest.mark.parametrize("scale", settings.SCALES)
def test_tables_share_runs_only_of_the_same_fields(scale):
    """Sweeps of one name share a folder: all that their grids do not vary is the same."""
    shared = {}
    for found in papers.TABLES:
        for sweep in found.scales.get(scale, ()):
            first = shared.setdefault(sweep.name, sweep)
            assert (sweep.preset, sweep.fields, list(sweep.grid)) == (first.preset, first.fields, list(first.grid))
            assert sweep.engine == first.engine


@pytest.mark.parametrize(("name", "scale"), [(name, next(iter(RUNS[name]))) for name in RUNS])
def test_a_table_is_made(name, scale, made_up, tmp_path, capsys):
    options = argparse.Namespace(scale=scale, out=tmp_path, workers=1, seeds=None)
    assert paper.make(table(name), options) == 0
    stem = tmp_path / scale / name
    said = (tmp_path / scale / f"{name}.md").read_text()
    assert said.strip() in capsys.readouterr().out
    assert "After Holm's correction, " in said
    assert f"{RUNS[name][scale]} runs; the median of their seconds is 2" in said and "1 x abacus" in said
    with open(f"{stem}.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert said.count("\n| ") == len(rows) and all(" ± " in "".join(row.values()) for row in rows)
    assert all(stem.with_suffix(suffix).stat().st_size > 1000 for suffix in (".png", ".pdf"))


@pytest.mark.parametrize("name", list(RUNS))
@pytest.mark.parametrize("seeds", ["3", "7, 3"])
def test_a_table_of_other_seeds(name, seeds, made_up, tmp_path, capsys):
    """One seed has no spread and decides nothing; two do."""
    scale, count = next(iter(RUNS[name])), len(seeds.split(","))
    assert paper.main(table(name), [f"--scale={scale}", f"--out={tmp_path}", "--seeds", seeds]) == 0
    said = capsys.readouterr().out
    assert f"{RUNS[name][scale] // 3 * count} runs; the median" in said
    assert (" ± " in said) == (count > 1)
    assert count > 1 or not ("confirmed" in said or "contradicted" in said)


def test_the_list_has_other_seeds(tmp_path, capsys):
    assert papers.main(["--scale=paper", f"--out={tmp_path}", "--list", "--seeds=11"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert all("seed=11" in line and "seed=0" not in line for line in lines)


@pytest.mark.parametrize("seeds", ["", "0,", "1,1", "-1", "1.5", "0 1"])
def test_seeds_that_are_none(seeds, capsys):
    with pytest.raises(SystemExit, match="2"):
        papers.main([f"--seeds={seeds}", "--list"])
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.endswith(f"--seeds: expected distinct whole numbers from 0, such as 0,1,2, got {seeds!r}")


@pytest.fixture
def make(made_up, tmp_path):
    """The table of a paper from made-up runs."""

    def of(found, scale="cpu"):
        rows = [row for sweep in found.scales[scale] for row in paper.run_sweep(sweep, tmp_path / scale)]
        return found.make(rows)

    return of


def test_table_1(make):
    made = make(lee_table1.PAPER_TABLE)
    assert [row["m"] for row in made.rows] == [32, 64, 128, 256, 512]
    assert made.rows[0]["SimCLR, whole set"] == "0.1978 ± 0.001" and made.rows[0]["SimCLR, paper (CIFAR-100)"] == 0.1649
    assert "confirmed (15 of 15 pairs; mean difference -0.0501 over 3 seeds" in made.effects[0].sentence
    assert "lower at m = 512 than at 32: confirmed (3 of 3 pairs; mean difference -0.0475" in made.effects[1].sentence


def test_figure_3(make):
    made = make(lee_figure3.PAPER_TABLE)
    assert [made.rows[-1][f"{name}, paper (CIFAR-10)"] for name in ("SimCLR", "with VRNS")] == [81, 86]
    raised, flatter, best = (effect.sentence for effect in made.effects)
    assert "at temperature 2: confirmed (3 of 3 pairs; mean difference 16.1" in raised
    assert "ranges less over the temperatures: confirmed" in flatter and "higher with VRNS: confirmed" in best


def test_figure_4(make):
    made = make(lee_figure4.PAPER_TABLE)
    assert len(made.rows) == 15 and len(made.effects) == 6
    assert all(
        ": confirmed (3 of 3 pairs; mean difference 9.47" in line
        for line in (effect.sentence for effect in made.effects)
    )
    assert made.rows[4] == {"loss": "SimCLR", "m": 512} | {
        f"linear probe, {what}": "51 ± 1" for what in ("alone", "with VRNS")
    }


def test_the_weight_of_vrns(make):
    """The made-up accuracy gains a tenth with VRNS at m = 32, and less at 256, whatever its weight."""
    made = make(vrns_weight.PAPER_TABLE)
    assert [(row["m"], row["lambda"]) for row in made.rows] == [
        (m, weight) for m in (32, 256) for weight in ("0", "0.3", "1", "3", "10", "30")
    ]
    assert made.rows[0]["linear probe"] == "51 ± 1" and made.rows[1]["linear probe"] == "60.47 ± 1.1"
    probes = [effect for effect in made.effects if effect.claim.endswith("linear probe")]
    assert len(probes) == 10 and len(made.effects) == 20
    assert probes[0].claim == "At m = 32, VRNS with lambda 0.3 raises the accuracy of the linear probe"
    assert all("confirmed (3 of 3 pairs; mean difference 9.47" in effect.finding for effect in probes[:5])
    assert all("confirmed (3 of 3 pairs; mean difference 0.631" in effect.finding for effect in probes[5:])


def test_the_remedies_differ_in_what_they_are(make, tmp_path):
    made = make(estimators.PAPER_TABLE, "minutes")
    assert [row["m"] for row in made.rows] == [32, 32, 32, 32, 32, 256]
    configs = {
        sweep.name: program.parse(sweep.arguments(tmp_path)).cells[0].config
        for sweep in estimators.PAPER_TABLE.scales["cpu"]
    }
    assert {(c.batch_size, c.contrast_size) for c in configs.values()} == {(256, 32), (32, 256)}
    assert [c.loss.name for c in configs.values()] == ["simclr", "simclr", "moco", "moco", "sogclr", "simclr"]
    assert configs["cifar10_estimators_vrns"].vrns_weight == 30


def rows_of(made, value):
    """The runs of a table at the scale `cpu`, with one number, a function of their fields."""
    for sweep in made.scales["cpu"]:
        for cell in program.parse(sweep.arguments(Path("runs"))).cells:
            fields = {path: str(x) for path, x in cell.values.items()}
            numbers = {column: str(x) for column, x in value(sweep, cell.config).items()}
            yield {**fields, "run": cell.name, "sweep": sweep.name, **numbers}


def test_a_collapsed_encoder_is_no_success(made_up, tmp_path):
    def value(sweep, config):
        collapsed = config.loss.name == "moco" and config.estimator.encoder_momentum is None
        noise = config.seed / 1000
        low = {paper.VARIANCE: 0.001 + noise, estimators.MEAN: 0.9}
        found = low if collapsed else {paper.VARIANCE: 0.1 - 2 * noise, estimators.MEAN: 0.0}
        return {paper.PROBE: 0.9 + noise, paper.FEW_LABELS: 0.8, **found}

    made = estimators.make_table(list(rows_of(estimators.PAPER_TABLE, value)))
    said = [effect.sentence for effect in made.effects]
    assert [line for line in said if line.startswith("Queue") and "negatives" in line and "encoder" not in line] == [
        "Queue: collapsed; its negatives are alike, and so their variance says nothing."
    ]


def test_medians_are_over_hyperparameters_within_seeds():
    """DHEL, of the paper's own form, gains a point on SimCLR at m = 32; the median temperature is halfway."""

    def value(sweep, config):
        t = config.loss.kwargs.get("temperature", 0)
        gain = 0.01 * (config.loss.name == "dhel") * (config.batch_size == 32) * (1 + config.seed / 10)
        assert config.loss.name != "dhel" or config.loss.kwargs.form == "sum"
        return {paper.PROBE: 0.5 + t / 10 + gain + config.seed / 100}

    made = koromilas_figure3.make_table(list(rows_of(koromilas_figure3.PAPER_TABLE, value)))
    assert made.rows[0]["linear probe, median"] == "54.5" and made.rows[0]["best"] == "62.0"
    above, falls, _, *_ = (effect.sentence for effect in made.effects)
    assert "At m = 32 the median of DHEL is above SimCLR's: confirmed (3 of 3 pairs; mean difference 1.1" in above
    assert "From m = 512 to 32 the median of DHEL falls less than SimCLR's: confirmed (3 of 3 pairs" in falls


def test_each_loss_is_compared_where_its_balance_is_lowest():
    """The lowest sum is at temperature 0.2; only there is DHEL's effective rank higher."""

    def value(sweep, config):
        t, noise = config.loss.kwargs.get("temperature", 0.2), config.seed / 1000
        geometry = dict.fromkeys(list(koromilas_properties.PROPERTIES.values())[:-1], 0.3 + noise + t / 1000)
        geometry[koromilas_properties.PROPERTIES["uniformity"]] = abs(t - 0.2) - 3 + noise
        rank = 40 + 5 * (config.loss.name == "dhel") * (1 + noise) * (1 if t == 0.2 else -1)
        return {**geometry, koromilas_properties.PROPERTIES["effective rank"]: rank, paper.PROBE: 0.5 - t + noise}

    made = koromilas_properties.make_table(list(rows_of(koromilas_properties.PAPER_TABLE, value)))
    assert "effective rank is higher with DHEL than with SimCLR: confirmed (3 of 3 pairs" in made.effects[2].sentence
    assert "SimCLR at temperature 0.2; DCL at temperature 0.2; DHEL at temperature 0.2" in made.effects[9].sentence
    assert made.effects[11].claim == "Rank correlation of uniformity with the linear probe over a seed's runs"


def test_a_sweep_that_fails_ends_the_table_and_has_said_why(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(program, "main", lambda _: 1)
    assert paper.main(lee_table1.PAPER_TABLE, [f"--out={tmp_path}"]) == 1
    assert capsys.readouterr() == ("", "") and not list(tmp_path.rglob("*.csv"))


def test_a_signal_ends_all_tables(tmp_path, monkeypatch):
    called = []
    monkeypatch.setattr(program, "main", lambda arguments: called.append(arguments) or 143)
    assert papers.main(["--scale=minutes", f"--out={tmp_path}"]) == 143 and len(called) == 1


def test_table_4_prints_its_commands_and_refuses_without_the_images(tmp_path, monkeypatch, capsys):
    missing = f"folder:{tmp_path / 'none'}"
    sweep = lee_table4.SWEEP._replace(fields={**lee_table4.SWEEP.fields, "data.source": missing})
    monkeypatch.setitem(lee_table4.SCALES, "paper", [sweep])
    assert paper.main(lee_table4.PAPER_TABLE, [f"--out={tmp_path}"]) == 2
    said, error = capsys.readouterr()
    lines = [line for line in said.splitlines() if "experiments.train" in line]
    assert len(lines) == 30 and lines[-1].startswith("| 72.88 | python -m experiments.train --config=configs/imagenet1")
    assert "--config.loss.kwargs.temperature=0.5 --config.vrns_weight=30" in lines[-1]
    assert error.startswith(f"error: config.data.source='{missing}'") and len(error.splitlines()) == 1


def test_all_tables_of_a_scale(monkeypatch, tmp_path, capsys):
    made = []
    monkeypatch.setattr(paper, "make", lambda found, options: made.append((found.name, options.scale)) or len(made) % 3)
    assert papers.main(["--scale=minutes", f"--out={tmp_path}"]) == 2
    assert made == [(name, "minutes") for name in RUNS if "minutes" in RUNS[name]]
    assert capsys.readouterr().out.count("\n## ") == len(made)


@pytest.mark.parametrize("name", ["cifar10", "fashion_mnist"])
def test_few_images_of_each_split(name, monkeypatch):
    def load(spec, *, split):
        assert spec == f"tfds:{name}"
        count = {"train": 10_500, "test": 30}[split]
        return sources.ArraySource(np.full((count, 4, 4, 1), 7, np.uint8), np.arange(count) % 10)

    monkeypatch.setattr(sources, "load", load)
    found = {split: getattr(images, name)(split) for split in ("train", "test")}
    assert {split: len(source) for split, source in found.items()} == {"train": 10_000, "test": 30}
    assert found["train"].labels[-1] == 9


@pytest.mark.slow
def test_real_runs_have_every_column(tmp_path):
    """Also the remedies that carry a queue, averages or cached gradients are runs of one program."""
    grid = {paper.WEIGHT: (0, "30"), paper.SEED: (0, 1)}
    sweep = settings.digits("real", grid, **{"epochs": 1, "optimizer.warmup_epochs": 0, "evaluation.probe_epochs": 1})
    rows = paper.run_sweep(sweep, tmp_path)
    assert len(rows) == 4 and all(np.isfinite(float(row[column])) for row in rows for column in COLUMNS)
    said = paper.describe_runs(rows, tmp_path)
    assert said.startswith("4 runs; the median of their seconds is ") and "unknown" not in said
    for remedy in estimators.SCALES["minutes"][2:]:
        fields = {**remedy.fields, "epochs": 1, "optimizer.warmup_epochs": 0, "evaluation.probe_epochs": 1}
        found = paper.run_sweep(remedy._replace(fields=fields, grid={paper.SEED: (0, 1)}), tmp_path)
        assert len({row[paper.PROBE] for row in found} | {row["final.loss"] for row in found}) > 2
