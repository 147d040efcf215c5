"""The text of a grid, its cells, their names, and all that is wrong with it at once."""

import pytest

from configs import digits
from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import validation
from contrastive_jax.jobs.sweeps.grid import make_cells, parse_grid

MANY = "loss.kwargs.temperature=0.1,0.2,0.5 vrns_weight=0,30 seed=0,1,2"


def cells(text, **overrides):
    return make_cells(digits.get_config(), overrides, parse_grid(text))


def test_a_cell_for_each_combination():
    found = cells(MANY)
    assert len(found) == 18 and [cell.number for cell in found] == list(range(18))
    assert found[0].name == "temperature=0.1,vrns_weight=0,seed=0"
    assert found[-1].name == "temperature=0.5,vrns_weight=30,seed=2"
    assert len({cell.name for cell in found}) == 18
    last = found[-1].config
    assert (last.loss.kwargs.temperature, last.vrns_weight, last.seed) == (0.5, 30.0, 2)
    assert found[-1].values == {"loss.kwargs.temperature": 0.5, "vrns_weight": 30.0, "seed": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a=1,2  b=x", {"a": ["1", "2"], "b": ["x"]}),
        ("a=(1,2),(3, 4)", {"a": ["(1,2)", "(3, 4)"]}),
        ("a=[1, [2, 3]],5", {"a": ["[1, [2, 3]]", "5"]}),
        ("""a='m:f,m:g',"x y" """, {"a": ["m:f,m:g", "x y"]}),
        ("--config.a=1", {"a": ["1"]}),
    ],
)
def test_brackets_and_quotes_protect(text, expected):
    assert parse_grid(text) == expected


@pytest.mark.parametrize("text", ["", " ", "seed", "=1", "seed=", "seed=1,,2", "seed=1 seed=2"])
def test_what_is_no_grid_is_refused(text):
    with pytest.raises(UsageError, match="--grid: expected"):
        parse_grid(text)


def test_cells_that_differ_in_their_seeds_alone_are_checked_once(monkeypatch):
    check, checked = validation.check, []

    def count(config, *rest, **options):
        checked.append((config.loss.kwargs.temperature, config.vrns_weight))
        check(config, *rest, **options)

    monkeypatch.setattr(validation, "check", count)
    assert [cell.config.seed for cell in cells(MANY)] == [0, 1, 2] * 6
    assert len(checked) == len(set(checked)) == 6
    with pytest.raises(UsageError, match=r"^config\.seed=-1: expected a whole number from 0"):
        cells("seed=0,-1")


def test_tuples_and_names_of_parts():
    found = cells("views.crop_scale=(0.2,1.0),(0.5,1.0) loss.name=simclr,dcl")
    assert found[0].config.views.crop_scale == (0.2, 1.0) and found[1].config.loss.name == "dcl"
    assert found[0].name == "crop_scale=(0.2,1),name=simclr"


def test_names_are_the_same_however_a_value_is_written():
    first, again = (cells(f"loss.kwargs.temperature={text}")[0].name for text in ("0.1", "1e-1"))
    assert first == again == "temperature=0.1"


def test_what_a_path_may_not_hold_becomes_a_digest():
    one, other = cells("data.source=folder:/a/b,folder:/a_b")
    assert one.name != other.name and one.name.startswith("source=folder__a_b-") and "/" not in one.name


def test_fields_of_the_same_last_part_are_named_whole():
    assert cells("model.name=mlp loss.name=dcl")[0].name == "model.name=mlp,loss.name=dcl"


def test_all_faults_are_named_at_once():
    with pytest.raises(UsageError) as caught:
        cells("loss.kwargs.temperatur=0.1,0.2 epochs=ten,5 vrns_weight=0,-1 batch_size=256 contrast_size=48", tempo="1")
    lines = str(caught.value).splitlines()
    assert len(lines) == len(set(lines))
    for part in ("temperatur: expected a keyword", "config.epochs=ten: expected a whole", "config.tempo: expected"):
        assert sum(part in line for line in lines) == 1


def test_fields_that_do_not_fit_each_other_are_named_too():
    with pytest.raises(UsageError, match=r"config\.contrast_size=48: expected a divisor") as caught:
        cells("contrast_size=48,64 vrns_weight=0,-1")
    assert "config.vrns_weight=-1.0: expected a number >= 0" in str(caught.value)


def test_a_value_twice_and_a_field_that_is_set_already():
    with pytest.raises(UsageError, match="expected different values of seed"):
        cells("seed=1,01")
    with pytest.raises(UsageError, match=r"config\.seed is given as an option, too"):
        cells("seed=1,2", seed="3")
