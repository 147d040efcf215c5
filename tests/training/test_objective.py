"""What is trained: the losses' own values, VRNS over all pairs of views, and what is learnt of a loss."""

import functools
import itertools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from contrastive_jax import losses
from contrastive_jax.losses import contract
from contrastive_jax.training import objective
from contrastive_jax.training.objective import Instances, Objective
from tests.mappings import AXIS, MAPPINGS

M, D = 8, 5
VIEWS = tuple(jax.random.normal(jax.random.key(0), (3, M, D)))
PAIR = Instances(VIEWS[:2], jnp.arange(M), jnp.arange(M) % 3)
TRIPLE = PAIR._replace(views=VIEWS)
LEARNABLE = {"info_nce": {"temperature": 0.5}, "simclr": {}, "siglip": {"scale": 5.0, "bias": -3.0}}


def of(name, kwargs=None, vrns_weight=0.0, learnable=False):
    return Objective(objective.LOSSES[name], kwargs or {}, vrns_weight, 50, learnable)


def test_labels_and_views_reach_the_losses_that_need_them():
    u, v = PAIR.views
    want = jax.jit(losses.sup_con)(u, v, PAIR.labels)
    np.testing.assert_allclose(jax.jit(lambda x: of("sup_con")(x))(PAIR)["loss"], want, rtol=1e-6)
    for name in ("multi_view_info_nce", "multi_view_dhel"):
        for instances in (PAIR, TRIPLE):
            want = getattr(losses, name)(jnp.stack(instances.views), temperature=0.3)
            np.testing.assert_allclose(of(name, {"temperature": 0.3})(instances)[name], want, rtol=1e-6)


def test_vrns_is_the_mean_over_all_pairs_of_views():
    parts = of("multi_view_dhel", vrns_weight=3.0)(TRIPLE)
    pairs = itertools.combinations(VIEWS, 2)
    want = sum(losses.vrns(u, v, num_instances=50) for u, v in pairs) / 3
    np.testing.assert_allclose(parts["vrns"], want, rtol=1e-6)
    np.testing.assert_allclose(parts["loss"], parts["multi_view_dhel"] + 3 * want, rtol=1e-6)


def test_the_losses_that_learn_are_all_tried():
    assert LEARNABLE.keys() == {name for name, loss in objective.LOSSES.items() if contract.needs_of(loss).learnable}


@pytest.mark.parametrize("log_scale", [-80.0, -104.0])
@pytest.mark.parametrize("name", LEARNABLE)
def test_a_learnt_scale_near_zero_has_a_gradient_of_zero(name, log_scale):
    learnt = of(name, LEARNABLE[name], learnable=True)
    parameters = {**learnt.parameters(), "log_scale": jnp.float32(log_scale)}
    gradient = jax.jit(jax.grad(lambda parameters: learnt(PAIR, parameters)["loss"].mean()))(parameters)
    np.testing.assert_allclose(gradient["log_scale"], 0, atol=1e-30)


@pytest.mark.parametrize("name", LEARNABLE)
def test_what_is_learnt_starts_from_the_fixed_loss(name):
    fixed, learnt = (of(name, LEARNABLE[name], 2.0, learnable) for learnable in (False, True))
    assert fixed.parameters() == {}
    np.testing.assert_allclose(learnt(PAIR, learnt.parameters())["loss"], fixed(PAIR)["loss"], rtol=1e-5)
    log_scale = learnt.parameters()["log_scale"]
    given = LEARNABLE[name].get("scale") or 1 / LEARNABLE[name].get("temperature", 0.2)
    assert objective.describe_learnt(learnt.parameters())["scale"] == pytest.approx(given, rel=1e-6)
    assert log_scale.dtype == jnp.float32 and log_scale.shape == ()


@pytest.mark.parametrize("name", LEARNABLE)
def test_gradients_of_what_is_learnt(name):
    learnt = of(name, LEARNABLE[name], learnable=True)
    parameters = learnt.parameters()
    got = jax.jit(jax.grad(lambda p: learnt(PAIR, p)["loss"].mean()))(parameters)

    def plain(scale, bias):
        options = {"scale": scale, "bias": bias} if name == "siglip" else {"temperature": 1 / scale}
        return objective.LOSSES[name](*PAIR.views, **options).mean()

    scale = jnp.exp(parameters["log_scale"])
    by_scale, by_bias = jax.jit(jax.grad(plain, argnums=(0, 1)))(scale, parameters.get("bias", jnp.float32(0)))
    np.testing.assert_allclose(got["log_scale"], scale * by_scale, rtol=1e-4)
    assert abs(got["log_scale"]) > 1e-3
    if name == "siglip":
        np.testing.assert_allclose(got["bias"], by_bias, rtol=1e-4)
        assert abs(got["bias"]) > 1e-3


@pytest.mark.parametrize("mapping", ["shard_map", "pmap"])
def test_gradients_of_what_is_learnt_are_the_same_on_four_devices(mapping):
    learnt = of("siglip", LEARNABLE["siglip"], learnable=True)

    def local(u, v, ids):
        def mean(parameters):
            return jax.lax.pmean(learnt(Instances((u, v), ids), parameters, axis_name=AXIS)["loss"].mean(), AXIS)

        return jax.lax.pmean(jax.grad(mean)(learnt.parameters()), AXIS)

    call = MAPPINGS[mapping](local, 4)
    got = jax.jit(lambda *arrays: call(*arrays, out=PartitionSpec()))(*PAIR.views, PAIR.ids)
    want = jax.jit(jax.grad(lambda p: learnt(PAIR, p)["loss"].mean()))(learnt.parameters())
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), got, want)


def test_the_scale_is_bounded_by_a_hundred_and_can_fall_from_there():
    parameters = objective.clip_scale({"log_scale": jnp.float32(9.0), "bias": jnp.float32(9.0)})
    assert parameters["log_scale"] == np.float32(math.log(100)) and parameters["bias"] == 9
    learnt = of("siglip", learnable=True)
    same = Instances((VIEWS[0], -VIEWS[0]), PAIR.ids)  # no scale helps
    assert jax.grad(lambda p: learnt(same, p)["loss"].mean())(parameters)["log_scale"] > 1
    assert objective.clip_scale({}) == {} == objective.describe_learnt({})


def test_the_precision_reaches_the_loss_and_vrns_and_no_loss_that_has_no_such_parameter():
    def own(u, v, *, ids, axis_name):
        return losses.simclr(u, v, ids=ids, axis_name=axis_name)

    def precise(u, v, *, ids, axis_name, precision="highest"):
        return losses.simclr(u, v, ids=ids, axis_name=axis_name, precision=precision)

    bound = functools.partial(losses.simclr, precision="high")
    for loss, precision, want in [
        (losses.simclr, "highest", {"HIGHEST"}),
        (losses.simclr, "high", {"HIGH"}),
        (precise, "high", {"HIGH"}),
        (own, "highest", {"HIGHEST"}),
        (bound, "highest", {"HIGH", "HIGHEST"}),  # its own stays, and VRNS has the other
    ]:
        trained = Objective(loss, {}, 1.0, 50, precision=precision)
        text = jax.jit(lambda instances, f=trained: f(instances)["loss"]).lower(PAIR).as_text()
        assert set(re.findall(r"precision = \[(\w+),", text)) == want
    with pytest.raises(
        ValueError, match="expected 'highest' for loss 'own', which has no parameter `precision`, got hi"
    ):
        Objective(own, precision="high")


@pytest.mark.parametrize("weight", [0.0, 30.0])
def test_a_traced_vrns_weight_is_the_same_weight(weight):
    u, v = jax.random.normal(jax.random.key(0), (2, 8, 16))

    def value(weight, u, **kwargs):
        objective = Objective(losses.simclr, {"temperature": 0.5}, weight, num_instances=100)
        parts = objective(Instances((u, v), jnp.arange(8)))
        return parts["loss"].mean(), parts

    of_embeddings = jax.grad(value, argnums=1, has_aux=True)
    expected, parts = of_embeddings(weight, u)
    found, traced = jax.jit(of_embeddings)(weight, u)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(traced["loss"], parts["loss"], rtol=1e-6)
    assert ("vrns" in parts) == bool(weight) and "vrns" in traced


def test_a_traced_vrns_weight_needs_the_size_of_the_training_set():
    with pytest.raises(ValueError, match="num_instances: expected the size of the training set, which VRNS needs"):
        jax.eval_shape(lambda weight: Objective(losses.simclr, vrns_weight=weight).parameters(), 0.0)
