"""Models by name, or from a user's own functions."""

import difflib
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, nnx

from contrastive_jax.errors import UsageError
from contrastive_jax.models._calling import call, describe, set_mode
from contrastive_jax.models._contrastive import ContrastiveModel
from contrastive_jax.models._heads import build_none, build_projection
from contrastive_jax.models._mlp import MLP
from contrastive_jax.models._resnet import build_resnet10, build_resnet18, build_resnet34, build_resnet50
from contrastive_jax.models._vit import build_vit_small, build_vit_tiny

ENCODERS: dict[str, Callable[..., nnx.Module]] = {
    "resnet10": build_resnet10,
    "resnet18": build_resnet18,
    "resnet34": build_resnet34,
    "resnet50": build_resnet50,
    "mlp": MLP,
    "vit_tiny": build_vit_tiny,
    "vit_small": build_vit_small,
}
"""name -> `fn(image_shape, *, rngs, **kwargs)`, an encoder of images [b, *image_shape]."""

HEADS: dict[str, Callable[..., nnx.Module | None]] = {"none": build_none, "projection": build_projection}
"""name -> `fn(num_features, *, rngs, **kwargs)`, a head of features [b, num_features], or None."""


def create(
    encoder: str | Callable[..., nnx.Module] = "resnet18",
    *,
    image_shape: tuple[int, int, int],
    head: str | Callable[..., nnx.Module | None] | None = "projection",
    encoder_kwargs: Mapping[str, Any] | None = None,
    head_kwargs: Mapping[str, Any] | None = None,
    seed: int = 0,
) -> ContrastiveModel:
    """An encoder with a head.

    Args:
      encoder: a name in `ENCODERS`, or a function that is called in the same way: `fn(image_shape, *, rngs,
        **encoder_kwargs)`, and returns an `nnx.Module` from images [b, h, w, c] to features [b, f].
      image_shape: `(height, width, channels)` of the images that will be encoded.
      head: a name in `HEADS`, or a function `fn(num_features, *, rngs, **head_kwargs)` that returns an `nnx.Module`
        from features [b, f] to projections [b, d], or None for no head; None as `"none"`.
      encoder_kwargs, head_kwargs: passed to these functions.
      seed: of the `nnx.Rngs` that both draw from, the encoder first. The same seed gives the same parameters.

    Returns:
      The model.

    Raises:
      UsageError: an unknown name or keyword argument, or a function that returns something else.

    Example:
      >>> model = create("resnet18", image_shape=(8, 8, 1), encoder_kwargs={"width": 8}, head_kwargs={"out": 16})
      >>> model(jnp.zeros((2, 8, 8, 1))).shape
      (2, 16)

    Reference:
      Lee et al. 2025, experimental protocol: ResNet-18 with the small stem and this head.
    """
    _check_image_shape(image_shape)
    rngs = nnx.Rngs(seed)
    built = _build("encoder", encoder, ENCODERS, image_shape, rngs, encoder_kwargs or {})
    if not isinstance(built, nnx.Module):
        raise UsageError(f"expected encoder {_name(encoder)} to return an nnx.Module, got {describe(built)}.")
    size = num_features(built, image_shape)
    projected = _build("head", "none" if head is None else head, HEADS, size, rngs, head_kwargs or {})
    if projected is not None and not isinstance(projected, nnx.Module):
        raise UsageError(f"expected head {_name(head)} to return an nnx.Module or None, got {describe(projected)}.")
    return ContrastiveModel(built, projected)


def num_features(encoder: nnx.Module, image_shape: tuple[int, int, int]) -> int:
    """Size f of the features [b, f] of images `[b, *image_shape]`, found without computing any.

    Raises:
      UsageError: the encoder gives something else than floats [b, f].

    Example:
      >>> num_features(ENCODERS["resnet10"]((8, 8, 1), width=8, rngs=nnx.Rngs(0)), (8, 8, 1))
      64
    """
    _check_image_shape(image_shape)
    graphdef, state = nnx.split(encoder)

    def encode(state: nnx.State, images: jax.Array) -> Any:
        model = nnx.merge(graphdef, state, copy=True)
        set_mode(model, train=False)
        return call(model, images, train=False)

    rows = 2
    out = jax.eval_shape(encode, state, jax.ShapeDtypeStruct((rows, *image_shape), jnp.float32))
    shape: tuple[int, ...] = getattr(out, "shape", ())
    if len(shape) != 2 or shape[0] != rows or not jnp.issubdtype(out.dtype, jnp.floating):
        got = f"{out.dtype}{list(shape)}" if hasattr(out, "dtype") else f"a {type(out).__name__}"
        raise UsageError(
            f"expected an encoder that gives float features [b, f], got {got} for images [{rows}, "
            f"{', '.join(map(str, image_shape))}]. Pool over height and width, or flatten."
        )
    return shape[1]


def _check_image_shape(image_shape: tuple[int, int, int]) -> None:
    sizes = tuple(image_shape)
    if len(sizes) != 3 or not all(isinstance(size, int) and size > 0 for size in sizes):
        raise UsageError(f"expected image_shape to be (height, width, channels), all at least 1, got {image_shape}.")


def _build(
    kind: str, given: Any, known: Mapping[str, Callable[..., Any]], size: Any, rngs: nnx.Rngs, kwargs: Mapping[str, Any]
) -> Any:
    if isinstance(given, str) and given not in known:
        close = difflib.get_close_matches(given, known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        raise UsageError(f"expected {kind} to be one of {', '.join(known)}, or a function, got {given!r}.{hint}")
    # A module that is built already can be called too, but with images.
    if isinstance(given, nnx.Module | linen.Module) or not (isinstance(given, str) or callable(given)):
        raise UsageError(
            f"expected {kind} to be a name or a function that builds a module, got {describe(given)}. A module that is "
            "built already goes into ContrastiveModel(encoder, head)."
        )
    build = known[given] if isinstance(given, str) else given
    _check_kwargs(f"{kind} {_name(given)}", build, kwargs)
    return build(size, rngs=rngs, **kwargs)


def _check_kwargs(name: str, build: Callable[..., Any], kwargs: Mapping[str, Any]) -> None:
    # The metaclass of nnx.Module hides the arguments of a class that is itself the function.
    method = inspect.getattr_static(build, "__init__") if isinstance(build, type) else None
    parameters = list(inspect.signature(functools.partial(method, None) if method else build).parameters.values())
    if any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    taken = [p.name for p in parameters[1:] if p.kind is not p.VAR_POSITIONAL and p.name != "rngs"]
    unknown = sorted(set(kwargs) - set(taken))
    if unknown:
        expected = ", ".join(taken) or "none"
        raise UsageError(f"expected keyword arguments of {name} among: {expected}; got {', '.join(unknown)}.")
    missing = [p.name for p in parameters[1:] if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    missing = [name for name in missing if name != "rngs" and name not in kwargs]
    if missing:
        raise UsageError(f"expected keyword arguments of {name} to hold {', '.join(missing)}, got {dict(kwargs)}.")


def _name(given: Any) -> str:
    return repr(given) if isinstance(given, str) else getattr(given, "__qualname__", repr(given))
