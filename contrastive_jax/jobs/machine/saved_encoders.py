"""The encoder in a checkpoint, read without the optimizer, the loss and the data of its run."""

import contextlib
import hashlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from contrastive_jax.errors import DamagedError, UsageError
from contrastive_jax.jobs.machine import storage
from contrastive_jax.training.state import TrainState

ITEM = "state"  # of a checkpoint
DIGEST = "sha256"  # of a whole state, in the metadata of its checkpoint
OTHER_VERSION = (
    "If another version of contrastive_jax wrote the run, read it with that version, or train it again with this one."
)
TRAINED, MOMENTUM = "trained encoder", "momentum encoder"
# Where each is in a train state: its parameters, and the rest of it.
_PLACES = {
    TRAINED: (("params", "model"), ("model_state",)),
    MOMENTUM: (("estimator", "encoder_params"), ("estimator", "encoder_state")),
}
_TRIES = 3  # a run that goes on may remove a checkpoint while it is read


class Saved(NamedTuple):
    """An encoder as a checkpoint holds it."""

    step: int
    which: str  # `TRAINED` or `MOMENTUM`
    params: dict[str, np.ndarray]  # by the names of their paths: "encoder/first/conv/kernel/value"
    state: dict[str, np.ndarray]
    digest: str  # SHA-256 of both
    has_momentum: bool  # whether the checkpoint holds a momentum encoder, too


def describe(state: TrainState) -> dict[str, str]:
    """The digests of the encoders of a state, by their names, for the metadata of its checkpoint."""
    encoders = {TRAINED: (state.params.model, state.model_state)}
    if "encoder_params" in state.estimator:
        encoders[MOMENTUM] = (state.estimator["encoder_params"], state.estimator["encoder_state"])
    return {_key(which): digest(name_leaves(params), name_leaves(rest)) for which, (params, rest) in encoders.items()}


def _key(which: str) -> str:
    return f"sha256 of the {which}"


def name_leaves(tree: Any) -> dict[str, Any]:
    """The leaves of a tree by the names of their paths, whatever its nodes are.

    Example:
      >>> name_leaves({"a": [1, {"b": 2}]})
      {'a/0': 1, 'a/1/b': 2}
    """
    paths = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): x for path, x in paths}


def digest(params: Mapping[str, Any], state: Mapping[str, Any]) -> str:
    """The SHA-256 of the arrays of an encoder with their names, dtypes and shapes, in the order of the names.

    Example:
      >>> digest({"a": np.zeros(2)}, {}) == digest({"a": np.zeros(2)}, {})
      True
      >>> digest({"a": np.zeros(2)}, {}) == digest({}, {"a": np.zeros(2)})
      False
    """
    found = hashlib.sha256()
    for part, arrays in (("params", params), ("state", state)):
        for name in sorted(arrays):
            x = np.asarray(arrays[name])
            found.update(f"{part}/{name} {x.dtype} {x.shape};".encode())
            found.update(np.ascontiguousarray(x).reshape(-1).view(np.uint8).data)
    return found.hexdigest()


def read(workdir: Path, step: int | None = None, *, momentum: bool = False) -> Saved:
    """Read an encoder from a checkpoint of a run; writes nothing, and needs no lock.

    Args:
      workdir: of the run, which may be going on.
      step: of the checkpoint; by default the last.
      momentum: whether to read the momentum encoder, rather than the one that is trained.

    Raises:
      UsageError: there is no such checkpoint, it holds no momentum encoder, or an earlier version wrote it, which kept
        no digest of the encoder.
      DamagedError: the checkpoint cannot be read, or holds other arrays than were saved.
      StorageError: the machine refuses to read it.
    """
    for k in range(_TRIES):
        chosen = _choose_step(workdir, step)
        try:
            with storage.explain_refusals(workdir):
                return _read(workdir / "checkpoints", chosen, MOMENTUM if momentum else TRAINED)
        except DamagedError:
            if step is not None or k == _TRIES - 1 or chosen in storage.list_steps(workdir / "checkpoints"):
                raise
    raise AssertionError("the last try returns or raises")


def _choose_step(workdir: Path, step: int | None) -> int:
    steps = storage.list_steps(workdir / "checkpoints")
    if not steps:
        raise UsageError(
            f"{workdir}: expected a run with a checkpoint, got one without. A run writes its first after "
            "config.checkpoint.every steps, or at its end; resume it with the same command."
        )
    if step is not None and step not in steps:
        raise UsageError(f"{workdir}: expected a step of {', '.join(map(str, steps))}, its checkpoints, got {step}.")
    return steps[-1] if step is None else step


def _read(checkpoints: Path, step: int, which: str) -> Saved:
    where = checkpoints / str(step)
    try:
        found, metadata, has_momentum = _restore(checkpoints, step, which)
    except (MemoryError, UsageError):
        raise
    except Exception as error:  # damaged files make Orbax raise errors of any type
        if storage.find_refusal(error) is not None:
            raise
        line = (str(error).strip() or "no message").splitlines()[0]
        fault = f"expected a checkpoint that can be read, got {type(error).__name__}: {line[:200]}"
        raise _explain_damage(where, fault) from error
    params, state = (name_leaves(_at(found, place)) for place in _PLACES[which])
    expected, actual = metadata.get(_key(which)), digest(params, state)
    if expected is None and DIGEST in metadata and not any(_key(name) in metadata for name in _PLACES):
        raise UsageError(f"{where}: expected a checkpoint with a {_key(which)}, got one without. {OTHER_VERSION}")
    if expected is None:
        raise _explain_damage(where, f"expected a {_key(which)} in its metadata, found none")
    if int(found["step"]) != step:
        raise _explain_damage(where, f"expected the state of step {step}, got that of step {int(found['step'])}")
    if expected != actual:
        raise _explain_damage(where, f"expected the arrays that were saved, got others: the {_key(which)} differs")
    return Saved(step, which, params, state, actual, has_momentum)


def _restore(checkpoints: Path, step: int, which: str) -> tuple[Any, dict[str, Any], bool]:
    """The parts of a checkpoint that are an encoder, its metadata, and whether it has a momentum encoder."""
    with _quiet(), _open(checkpoints) as manager:
        tree = manager.item_metadata(step)[ITEM].tree
        has_momentum = "encoder_params" in (tree.get("estimator") or {})
        if which == MOMENTUM and not has_momentum:
            raise UsageError(
                f"{checkpoints / str(step)}: expected a momentum encoder, got a run without one "
                "(config.estimator.encoder_momentum). Leave out momentum=True."
            )
        target: dict[str, Any] = {"step": _like(tree["step"])}
        for place in _PLACES[which]:
            if part := _at(tree, place):  # a model without statistics has no state
                _put(target, place, _like(part))
        options_of_arrays = ocp.checkpoint_utils.construct_restore_args(target)
        restore = ocp.args.PyTreeRestore(item=target, restore_args=options_of_arrays, partial_restore=True)
        found = manager.restore(step, args=ocp.args.Composite(**{ITEM: restore}))[ITEM]
        return found, manager.metadata(step).custom_metadata or {}, has_momentum


def _open(checkpoints: Path) -> ocp.CheckpointManager:
    options = ocp.CheckpointManagerOptions(read_only=True, create=False, lightweight_initialize=True)
    handlers = {ITEM: ocp.PyTreeCheckpointHandler()}
    return ocp.CheckpointManager(checkpoints.absolute(), options=options, item_handlers=handlers)


def _at(tree: Any, place: tuple[str, ...]) -> Any:
    for name in place:
        tree = (tree or {}).get(name)
    return tree or {}


def _put(tree: dict[str, Any], place: tuple[str, ...], value: Any) -> None:
    for name in place[:-1]:
        tree = tree.setdefault(name, {})
    tree[place[-1]] = value


def _like(tree: Any) -> Any:
    return jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), tree)


def _explain_damage(where: Path, fault: str) -> DamagedError:
    before = [step for step in storage.list_steps(where.parent) if step < int(where.name)]
    advice = f"Load an earlier one: step={before[-1]}." if before else "Restore a copy of it."
    return DamagedError(f"{where}: {fault}. {advice}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Silence Orbax, which warns that it only reads."""
    logger = logging.getLogger("absl")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
