"""How much a program computes, read from its jaxpr: the same on every machine."""

import math

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr


def of(fn, *args):
    """(multiplications in matrix products, exponentials) of fn(*args); of a branch, those of the dearer side."""
    return _of_jaxpr(jax.make_jaxpr(fn)(*args).jaxpr)


def _of_jaxpr(jaxpr):
    products = exponentials = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            contracted = equation.params["dimension_numbers"][0][0]
            shape = equation.invars[0].aval.shape
            products += equation.outvars[0].aval.size * math.prod(shape[i] for i in contracted)
        elif equation.primitive.name in ("exp", "logistic"):
            exponentials += equation.outvars[0].aval.size
        inner = [_of_jaxpr(getattr(x, "jaxpr", x)) for x in _inside(equation)]
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        combine = max if equation.primitive.name == "cond" else sum
        if inner:
            products += times * combine(x[0] for x in inner)
            exponentials += times * combine(x[1] for x in inner)
    return products, exponentials


def _inside(equation):
    leaves = jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: isinstance(x, Jaxpr | ClosedJaxpr))
    return [x for x in leaves if isinstance(x, Jaxpr | ClosedJaxpr)]
