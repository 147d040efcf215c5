"""The configuration of an earlier run, where a preset is asked for: `--config=runs/digits/config.json`."""

from pathlib import Path

from contrastive_jax.training import config


def get_config(path):
    """That of a `config.json`, with every field it lacks at its default."""
    try:
        return config.from_json(Path(path).read_text())
    except config.UsageError as error:
        raise config.UsageError(f"--config={path}: {error}") from None
