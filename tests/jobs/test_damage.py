"""Damaged files of a run: it says so, goes back to the newest checkpoint that is whole, and ends as if nothing were."""

import itertools
import re
import shutil

import hypothesis
import jax
import numpy as np
import pytest
from hypothesis import strategies as st

from contrastive_jax.errors import DamagedError, UsageError
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs import rows as logs
from contrastive_jax.jobs.machine.checkpoints import Checkpoints, digest
from tests.jobs.support import small, train

CONFIG = small(**{"checkpoint.every": 2, "model.kwargs.hidden": (128,)})  # more than what is written about it
STEPS = 6


@pytest.fixture(scope="module")
def original(tmp_path_factory):
    """A run of six steps that nothing happens to: its workdir, job, and checkpoints' digests."""
    folder = tmp_path_factory.mktemp("undamaged") / "run"
    with jax.numpy_dtype_promotion("standard"):
        job = job_lib.prepare(CONFIG, folder)
        state = train(CONFIG, folder, STEPS, job=job)
        with Checkpoints(folder / "checkpoints", keep=3) as checkpoints:
            digests = {step: digest(checkpoints.restore(job.initial, step)) for step in (2, 4, 6)}
    assert digests[6] == digest(jax.tree.map(np.asarray, state))
    return folder, job, digests


@pytest.fixture
def workdir(original, tmp_path):
    return shutil.copytree(original[0], tmp_path / "run")


def largest(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """One bit in the middle of the largest of the compressed arrays, whose frames begin with these four bytes.

    What that leads to differs: where the frames lie in the file is a matter of timing.
    """
    data = bytearray(path.read_bytes())
    frames = [match.start() for match in re.finditer(rb"\x28\xb5\x2f\xfd", data)]
    begin, end = max(itertools.pairwise(frames), key=lambda frame: frame[1] - frame[0])
    data[(begin + end) // 2] ^= 1
    path.write_bytes(data)


def flip_unnoticed(folder, job, monkeypatch):
    """Write a checkpoint anew with one bit of one array flipped: nothing but the digest tells."""
    step, beside = int(folder.name), folder.parents[1] / "beside"
    with Checkpoints(folder.parent, keep=3) as checkpoints:
        state = jax.tree.map(np.copy, checkpoints.restore(job.initial, step))
    before = digest(state)
    largest_array = max(jax.tree.leaves(state.params), key=np.size)
    largest_array.reshape(-1).view(np.uint32)[largest_array.size // 2] ^= 1
    with monkeypatch.context() as patch, Checkpoints(beside, keep=3) as checkpoints:
        patch.setattr("contrastive_jax.jobs.machine.checkpoints.digest", lambda _: before)
        checkpoints.save(state)
        checkpoints.wait()
    shutil.rmtree(folder)
    (beside / str(step)).rename(folder)
    shutil.rmtree(beside)


def empty_all(path):
    for file in [p for p in path.parents[1].rglob("*") if p.is_file()]:
        file.write_bytes(b"")


DAMAGES = {"cut": cut, "flipped": flip, "empty": lambda p: p.write_bytes(b""), "gone": lambda p: p.unlink()}


@pytest.mark.parametrize("damage", [*DAMAGES.values(), empty_all], ids=[*DAMAGES, "all files empty"])
def test_a_run_goes_back_and_ends_the_same(damage, original, workdir, capsys):
    damage(largest(workdir / "checkpoints" / "6"))
    state = train(CONFIG, workdir, STEPS, job=original[1])
    said = capsys.readouterr().err
    assert f"Moved the checkpoint of step 6 to {workdir / 'damaged' / '6'}: " in said
    assert f"Resuming {workdir} after step 4" in said
    assert digest(jax.tree.map(np.asarray, state)) == original[2][6]
    assert (workdir / "metrics.jsonl").read_bytes() == (original[0] / "metrics.jsonl").read_bytes()
    assert (workdir / "similarity.counts").read_bytes() == (original[0] / "similarity.counts").read_bytes()
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints:  # what was written in its place is whole
        assert digest(checkpoints.restore(original[1].initial, 6)) == original[2][6]
    assert any((workdir / "damaged" / "6").iterdir())


def test_a_flipped_bit_is_noticed_by_the_digest_alone(original, workdir, monkeypatch):
    flip_unnoticed(workdir / "checkpoints" / "6", original[1], monkeypatch)
    said = pytest.raises(DamagedError, match="expected the arrays that were saved, got others: their sha256 differs")
    with Checkpoints(workdir / "checkpoints", keep=3) as checkpoints, said:
        checkpoints.restore(original[1].initial, 6)


many = hypothesis.settings(max_examples=10 * hypothesis.settings().max_examples)


@many
@hypothesis.given(st.data())
def test_whatever_the_damage_no_wrong_state_is_resumed(original, tmp_path_factory, data):
    run, job, digests = original
    checkpoints = tmp_path_factory.mktemp("fuzzed") / "checkpoints"
    shutil.copytree(run / "checkpoints", checkpoints)
    newest = checkpoints / "6"
    path = data.draw(st.sampled_from(sorted(newest.rglob("*"))))
    how = data.draw(st.sampled_from(["cut", "changed", "gone", "another thing"]))
    if path.is_dir() or how in ("gone", "another thing"):
        _replace(path, with_a_file=how == "another thing")
    else:
        contents = bytearray(path.read_bytes())
        place = data.draw(st.integers(0, max(len(contents) - 1, 0)))
        if how == "cut" or not contents:
            del contents[place:]
        else:
            contents[place] ^= data.draw(st.integers(1, 255))
        path.write_bytes(contents)
    with jax.numpy_dtype_promotion("standard"), Checkpoints(checkpoints, keep=3) as kept:
        state = kept.resume(job.initial, max_step=6)
    assert digest(state) == digests[int(state.step)]
    assert int(state.step) in (4, 6)
    shutil.rmtree(checkpoints.parent)


def _replace(path, *, with_a_file):
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    if with_a_file:
        path.write_bytes(b"\1")


def test_where_all_are_damaged_they_are_named_and_nothing_is_touched(original, workdir, monkeypatch):
    for step in (2, 4, 6):
        flip_unnoticed(workdir / "checkpoints" / str(step), original[1], monkeypatch)
    before = contents(workdir)
    with pytest.raises(DamagedError) as error:
        train(CONFIG, workdir, STEPS, job=original[1])
    for step in (2, 4, 6):
        assert f"{workdir / 'checkpoints' / str(step)}: expected the arrays that were saved, got others" in str(
            error.value
        )
    assert "restore a copy of one, or move the folder away to start over" in str(error.value)
    assert contents(workdir) == before


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_a_second_damage_to_the_same_step_keeps_both(original, workdir):
    for _ in range(2):
        flip(largest(workdir / "checkpoints" / "6"))
        train(CONFIG, workdir, STEPS, job=original[1])
    assert {p.name for p in (workdir / "damaged").iterdir()} == {"6", "6-2"}


@pytest.mark.parametrize("name", ["metrics.jsonl", "similarity.counts"])
def test_a_run_does_not_go_on_from_later_than_its_log(name, original, workdir, capsys):
    """A step would be missing from the log for ever."""
    path = workdir / name
    path.write_bytes(path.read_bytes()[: -(path.stat().st_size // 12)])  # half of the last step
    state = train(CONFIG, workdir, STEPS, job=original[1])
    assert "expected a log of at least 6 steps, got 5 complete ones" in capsys.readouterr().err
    assert digest(jax.tree.map(np.asarray, state)) == original[2][6]
    assert path.read_bytes() == (original[0] / name).read_bytes()


def test_a_file_in_place_of_a_checkpoint_is_set_aside(original, workdir, capsys):
    _replace(workdir / "checkpoints" / "6", with_a_file=True)
    assert digest(jax.tree.map(np.asarray, train(CONFIG, workdir, STEPS, job=original[1]))) == original[2][6]
    assert f"Moved the checkpoint of step 6 to {workdir / 'damaged' / '6'}" in capsys.readouterr().err
    assert (workdir / "damaged" / "6").read_bytes() == b"\1"


def test_a_checkpoint_under_another_step(original, workdir):
    shutil.rmtree(workdir / "checkpoints" / "6")
    (workdir / "checkpoints" / "2").rename(workdir / "checkpoints" / "6")
    with (
        Checkpoints(workdir / "checkpoints", keep=3) as checkpoints,
        pytest.raises(DamagedError, match="expected the state of step 6, got that of step 2"),
    ):
        checkpoints.restore(original[1].initial, 6)


def test_want_of_memory_is_no_damage(original, workdir, monkeypatch):
    def fail(*_):
        raise MemoryError

    monkeypatch.setattr("contrastive_jax.jobs.machine.checkpoints.digest", fail)
    with pytest.raises(MemoryError):
        train(CONFIG, workdir, STEPS, job=original[1])
    assert (workdir / "checkpoints" / "6").exists() and not (workdir / "damaged").exists()


def test_checkpoints_that_are_gone(original, workdir):
    """The log of the steps that were taken is not thrown away without a word."""
    shutil.rmtree(workdir / "checkpoints")
    with pytest.raises(UsageError, match="the log holds 6 steps, but there is no checkpoint"):
        train(CONFIG, workdir, STEPS, job=original[1])
    assert (workdir / "metrics.jsonl").read_bytes() == (original[0] / "metrics.jsonl").read_bytes()


def test_what_a_killed_run_had_begun_is_removed(original, workdir):
    begun = workdir / "checkpoints" / "8.orbax-checkpoint-tmp"
    begun.mkdir()
    train(CONFIG, workdir, STEPS, job=original[1])
    assert not begun.exists()


def test_a_log_that_is_gone(original, workdir):
    (workdir / "metrics.jsonl").unlink()
    with pytest.raises(DamagedError, match=r"checkpoints/6: expected a log of at least 6 steps, got 0 complete ones"):
        train(CONFIG, workdir, STEPS, job=original[1])
    assert (workdir / "checkpoints" / "6").exists()


ROW = '{"step": %d, "loss": 1.0}\n'


def test_the_log_of_what_was_not_finite_is_repaired(tmp_path):
    whole = b'{"step": 1, "loss": "nan"}\n'
    (tmp_path / "nonfinite.jsonl").write_bytes(whole + b'\xff{"step"\n{"step": 5}\n{"step": 2}')
    logs.keep_steps_before(tmp_path, 4, num_bins=0)
    assert (tmp_path / "nonfinite.jsonl").read_bytes() == whole


@pytest.mark.parametrize(
    ("text", "steps"),
    [
        ("", 0),
        (ROW % 0 + ROW % 1, 2),
        (ROW % 0 + ROW % 1 + '{"step": 2, "lo', 2),
        (ROW % 0 + ROW % 1 + '{"step": 2}', 2),  # nothing but its end is missing
        (ROW % 0 + "\0" * 40 + "\n" + ROW % 2, 1),
        (ROW % 0 + ROW % 2, 1),
        (ROW % 0 + ROW % 0, 1),
        (ROW % 0 + "[1]\n", 1),
    ],
)
def test_the_steps_that_are_whole_in_a_log(text, steps, tmp_path):
    (tmp_path / "metrics.jsonl").write_text(text)
    assert logs.count_logged_steps(tmp_path, num_bins=0) == steps
    logs.keep_steps_before(tmp_path, steps, num_bins=0)
    assert [row["step"] for row in logs.read_rows(tmp_path / "metrics.jsonl")] == list(range(steps))
