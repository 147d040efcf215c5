"""The fields of a configuration: from text and JSON, with the types and the neighbours of their names."""

import pytest

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import validation
from tests.jobs.support import config


def test_a_configuration_comes_back_from_its_json():
    given = config(**{"views.crop_scale": (0.25, 0.75), "contrast_size": 16, "loss.kwargs.temperature": 0.25})
    assert config_lib.from_json(given.to_json()) == given


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"seed": 1', "expected the configuration of a run as JSON"),
        ("[1]", "expected the configuration of a run as JSON"),
        ('{"sead": 1}', "config.sead: expected the name of a field; similar fields are seed"),
        ('{"seed": "one"}', "config.seed='one': expected a value of type int, got str"),
        ('{"loss": {"name": "dcl", "kwargs": {"tau": 1}}}', "loss 'dcl', which takes temperature, sigma"),
    ],
)
def test_json_that_is_no_configuration(text, message):
    with pytest.raises(UsageError, match=message):
        config_lib.from_json(text)


def test_the_full_batch_is_all_that_devices_can_share():
    full, given = config(contrast_size=0), {"num_instances": 1437, "num_devices": 8}
    assert config_lib.contrast_size(full, **given) == config_lib.update_size(full, **given) == 1432
    assert config_lib.contrast_size(full, num_instances=1437, num_devices=1) == 1437
    assert config_lib.contrast_size(config(), **given) == config_lib.update_size(config(), **given) == 64


def test_nested_tuples_come_back_from_json():
    text = config(**{"loss.name": "tests.jobs.own_parts:anything", "loss.kwargs.sizes": ((1, 2), (3, 4))}).to_json()
    assert config_lib.from_json(text).loss.kwargs.sizes == ((1, 2), (3, 4))


def test_arguments_are_not_nested():
    given = config(**{"loss.name": "tests.jobs.own_parts:anything"})
    with pytest.raises(UsageError, match=r"config.loss.kwargs.a.b: expected .*, got a dictionary"):
        config_lib.set_from_text(given, "loss.kwargs.a.b", "3")


def test_arguments_of_a_part_of_ones_own_have_its_types_and_no_limits_of_ours():
    given = config(**{"loss.name": "tests.jobs.own_parts:typed"})
    for name, text, value in [
        ("temperature", "0.5", 0.5),
        ("temperature", "-2", -2),
        ("width", "none", None),
        ("mode", "none", "none"),
        ("others", "none", None),
    ]:
        config_lib.set_from_text(given, f"loss.kwargs.{name}", text)
        assert given.loss.kwargs[name] == value
    assert not list(validation.field_faults(given))
    assert config_lib.from_json(given.to_json()).loss.kwargs.to_dict() == given.loss.kwargs.to_dict()
    for name, text, expected in [("temperature", "warm", "number"), ("width", "0.5", "value of type int")]:
        with pytest.raises(UsageError, match=rf"config.loss.kwargs.{name}={text}: expected a {expected}"):
            config_lib.set_from_text(given, f"loss.kwargs.{name}", text)


@pytest.mark.parametrize("name", ["ids", "axis_name", "labels"])
def test_arguments_that_the_job_passes_are_not_set(name):
    given = config(**{"loss.name": "tests.jobs.own_parts:anything"})
    with pytest.raises(UsageError, match=rf"config.loss.kwargs.{name}: expected an argument that is yours to set"):
        config_lib.set_from_text(given, f"loss.kwargs.{name}", "3")


def test_names_of_metrics_may_be_separated_by_spaces_or_cleared():
    given = config()
    config_lib.set_from_text(given, "log.metrics", "a.b:c, d.e:f")
    assert given.log.metrics == ("a.b:c", "d.e:f")
    config_lib.set_from_text(given, "log.metrics", "none")
    assert given.log.metrics == ()


def test_unknown_fields_are_named_with_their_neighbours():
    with pytest.raises(
        UsageError, match=r"config.loss.learns: expected the name of a field; similar fields are .*loss.learnable"
    ):
        config_lib.find_field("loss.learns", config())


def test_a_keyword_argument_has_the_type_that_the_named_part_gives_it():
    """`gamma` weighs the negatives of kcl, and is no argument of sogclr."""
    given = config(**{"loss.name": "kcl"})
    config_lib.set_from_text(given, "loss.kwargs.gamma", "8")
    assert given.loss.kwargs.gamma == 8.0 and isinstance(given.loss.kwargs.gamma, float)
    with pytest.raises(UsageError, match=r"config.loss.kwargs.gamma=much: expected a value of type float"):
        config_lib.set_from_text(given, "loss.kwargs.gamma", "much")
    given = config(**{"loss.name": "sogclr"})
    with pytest.raises(UsageError, match="of loss 'sogclr', which takes temperature, update_weight"):
        config_lib.set_from_text(given, "loss.kwargs.gamma", "8")
