"""What a person runs from the checkout, each a program."""

from contrastive_jax import extras
from contrastive_jax.errors import MissingExtraError


def check_extra(*modules: str, extra: str, what: str) -> None:
    """End with one line that names the extra, if one of these modules is not installed."""
    try:
        extras.check(*modules, extra=extra, what=what)
    except MissingExtraError as error:
        raise SystemExit(f"error: {error}") from None
