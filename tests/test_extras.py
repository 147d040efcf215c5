"""A missing package is one line that names its extra."""

import sys

import pytest

from contrastive_jax import errors, extras


@pytest.mark.parametrize(
    ("module", "distribution"),
    [
        ("tensorflow_datasets", "tensorflow-datasets"),
        ("array_record", "array_record"),
        ("PIL.Image", "pillow"),
        ("sklearn.datasets", "scikit-learn"),
        ("orbax.checkpoint", "orbax-checkpoint"),
        ("ml_collections", "ml-collections"),
    ],
)
def test_a_missing_package_is_named_as_pip_knows_it(module, distribution, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(f"{module}.")] + [module]:
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.setitem(sys.modules, module.partition(".")[0], None)  # as if it were not installed
    with pytest.raises(errors.MissingExtraError) as caught:
        extras.require(module, extra="train", what="digits")
    assert str(caught.value) == f'digits needs {distribution}: pip install "contrastive_jax[train]"'


def test_a_package_that_a_package_lacks_is_named(tmp_path, monkeypatch):
    (tmp_path / "half_installed.py").write_text("import missing_part.inside")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(errors.MissingExtraError, match=r'half_installed needs missing-part: pip install ".*\[tfds\]"'):
        extras.require("half_installed", extra="tfds")
