"""What the studies share: the table, the verdicts, the exit status and the files."""

from matplotlib.figure import Figure

from experiments.studies import study


def make_study(error):
    def result(*, quick, seed):
        rows = [{"loss": "one", "seed": seed, "interval": (0.0, 0.123456)}, {"loss": "other", "seed": 3, "interval": 1}]
        return study.Result(rows, [study.Check("a claim", error, 1e-3)], Figure())

    return result


def test_a_prediction_that_fails_is_said_and_is_the_exit_status(tmp_path, capsys):
    assert study.main("mine", make_study(0.5), [f"--out={tmp_path}"]) == 1
    assert "NOT AS PREDICTED: a claim: 0.5 (at most 0.001)" in capsys.readouterr().out


def test_the_table_has_a_line_for_each_row(tmp_path, capsys):
    assert study.main("mine", make_study(0), [f"--out={tmp_path}", "--seed=7"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "| loss  | seed | interval    |"
    assert lines[2] == "| one   | 7    | 0 to 0.1235 |"


def test_a_nan_is_not_as_predicted():
    assert not study.Check("a claim", float("nan"), 1.0).holds


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert study.main("mine", make_study(0), [f"--out={tmp_path / 'file'}"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
