"""The configuration of an earlier run, where a preset is asked for: `--config=runs/digits/config.json`."""

from pathlib import Path

from contrastive_jax.errors import UsageError
from contrastive_jax.jobs import config


def get_config(path):
    """That of a `config.json`, with every field it lacks at its default."""
    try:
        return config.from_json(Path(path).read_text())
    except UsageError as error:
        raise UsageError(f"--config={path}: {error}") from None
