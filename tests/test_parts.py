"""`package.module:function`: imported from the working directory too, or one line that says what is wrong."""

import sys

import pytest

from contrastive_jax import errors, parts

MODULES = {
    "good": "number = 3\ndouble = lambda x: 2 * x\nclass Group:\n    triple = staticmethod(lambda x: 3 * x)\n",
    "raises": "raise RuntimeError('no licence\\nin here')\n",
    "leaves": "import sys; sys.exit('usage: leaves FILE')\n",
    "needs": "import package_that_is_not_there\n",
    "wrong": "def f(:\n",
}


@pytest.fixture(autouse=True)
def modules(tmp_path, monkeypatch):
    """A working directory with a package of modules that are imported afresh."""
    package = tmp_path / "own_parts"
    package.mkdir()
    for name, text in MODULES.items():
        (package / f"{name}.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in [name for name in sys.modules if name.startswith("own_parts")]:
        del sys.modules[name]


def test_a_function_of_the_working_directory():
    assert parts.load_part("own_parts.good:double")(4) == 8
    assert parts.load_part("own_parts.good:Group.triple")(4) == 12


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("own_parts.good", "own_parts.good: expected package.module:function, got a name without a colon"),
        ("own_parts.good:", "own_parts.good:: expected package.module:function, got names that are not Python's"),
        ("own parts:f", "own parts:f: expected package.module:function, got names that are not Python's"),
        ("own_parts.bad:f", "expected package.module:function, got no module 'own_parts.bad' in the working directory"),
        ("not_there.at.all:f", "expected package.module:function, got no module 'not_there' in the working directory"),
        ("own_parts.good:halve", "expected a function in module own_parts.good, got no attribute 'halve'"),
        ("own_parts.good:Group.halve", "expected a function in module own_parts.good, got no attribute 'Group.halve'"),
        ("own_parts.good:number", "expected a function, got int; name something that can be called"),
        ("own_parts.raises:f", "module own_parts.raises raised RuntimeError when it was imported: no licence in here"),
        ("own_parts.leaves:f", "module own_parts.leaves raised SystemExit when it was imported: usage: leaves FILE"),
        ("own_parts.needs:f", "module own_parts.needs could not be imported: No module named 'package_that_is_not"),
        ("own_parts.wrong:f", "module own_parts.wrong raised SyntaxError when it was imported"),
    ],
)
def test_every_way_to_fail_is_one_line(spec, message):
    with pytest.raises(errors.UsageError) as caught:
        parts.load_part(spec)
    assert str(caught.value).startswith(f"{spec}: ") and message in str(caught.value)
    assert "\n" not in str(caught.value)
