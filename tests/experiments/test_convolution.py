"""The benchmark of convolutions, on the smallest map."""

import sys

from experiments.benchmarks import convolution


def test_a_line_for_each_case_says_what_the_rule_takes(monkeypatch, capsys):
    arguments = ["--sizes=1,2", "--channels=2", "--batches=1,16", "--seconds=0"]
    monkeypatch.setattr(sys, "argv", ["convolution", *arguments])
    convolution.main()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in capsys.readouterr().out.splitlines()[2:]]
    taken = {tuple(map(int, row[:4])): row[6] for row in rows}
    assert taken == {
        (1, 1, 2, 1): "convolution",
        (1, 1, 2, 16): "product",
        (2, 1, 2, 1): "convolution",
        (2, 1, 2, 16): "product",
        (2, 2, 2, 1): "convolution",
        (2, 2, 2, 16): "product",
    }
    for row in rows:
        times = dict(zip(convolution.FORMS, map(float, row[4:6]), strict=True))
        assert min(times.values()) == times[row[7]]
