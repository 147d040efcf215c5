"""The command line of a run: options, a preset, and overrides of its fields."""

import argparse
import importlib.util
import os
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple, NoReturn

from ml_collections import ConfigDict

from contrastive_jax.errors import Interrupted, MissingExtraError, UsageError
from contrastive_jax.jobs import config as config_lib
from contrastive_jax.jobs import parts, validation
from contrastive_jax.jobs.machine import profiler

_EXAMPLE = "for example --config=configs/digits.py --workdir=runs/digits"
_OVERRIDE = "--config."


class Options(NamedTuple):
    """The options of a command line."""

    config: ConfigDict
    workdir: str
    steps: int | None = None
    profile: range | None = None  # of steps


class Parser(argparse.ArgumentParser):
    """A parser that raises `UsageError` for what it cannot parse."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].lower()}{message[1:]}; see --help.")


def _build_parser() -> Parser:
    parser = Parser(
        prog="python -m experiments.train",
        description="Train an encoder contrastively, watch the similarities, evaluate it.",
        epilog="Any field of the configuration can be set: --config.loss.kwargs.temperature=0.1 --config.epochs=10.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", help="the preset: a file of configs/, or the config.json of a run")
    parser.add_argument("--workdir", help="the folder for the results; an existing one resumes its run")
    parser.add_argument("--steps", type=int, help="stop after this many steps in total, then evaluate as usual")
    parser.add_argument("--profile", metavar="START:STOP", help="write a profiler trace of these steps to the workdir")
    parser.add_argument("--coordinator", help="HOST:PORT of process 0, where a job has several processes")
    parser.add_argument("--num_processes", type=int, help="how many processes the job has; 1 alone: no others")
    parser.add_argument("--process_id", type=int, help="which of them this is, from 0")
    return parser


def parse(arguments: Sequence[str]) -> Options:
    """Parse a command line.

    Args:
      arguments: without the program's name; `--name=value` and `--name value` mean the same.

    Raises:
      UsageError: all that is wrong with it, a line each.

    Example:
      >>> parse(["--config=configs/smoke.py", "--workdir", "runs/smoke", "--config.epochs=3"]).config.epochs
      3
    """
    rest, overrides, faults = split_overrides(arguments)
    given, profile = argparse.Namespace(config=None, workdir=None), None
    try:
        given, unknown = _build_parser().parse_known_args(rest)
        profile = None if given.profile is None else profiler.parse_span(given.profile)
        faults += [f"{argument!r} is not an option; see --help." for argument in unknown]
    except UsageError as error:
        faults.append(str(error))
    else:
        faults += [f"--{name} is missing; {_EXAMPLE}." for name in ("config", "workdir") if not getattr(given, name)]
    config = None
    if given.config:
        try:
            config = read_preset(given.config)
        except UsageError as error:
            faults.append(str(error))
    if config is not None:
        faults += apply_overrides(config, overrides)
        if faults:
            faults += [fault for _, fault in validation.field_faults(config) if fault not in faults]
    if config is None or faults:
        raise UsageError("\n".join(faults))
    return Options(config, given.workdir, given.steps, profile)


def split_overrides(arguments: Sequence[str]) -> tuple[list[str], dict[str, str], list[str]]:
    """Split arguments into other options, overrides {field: text} and faults."""
    rest: list[str] = []
    overrides: dict[str, str] = {}
    faults = []
    waiting = iter(arguments)
    for argument in waiting:
        if not argument.startswith(_OVERRIDE):
            rest.append(argument)
            continue
        path, given, text = argument.removeprefix(_OVERRIDE).partition("=")
        value = text if given else next(waiting, None)
        if value is None or (not given and value.startswith("--")):
            faults.append(f"{argument}: expected a value, {argument}=VALUE.")
            rest += [] if value is None else [value]
        else:
            overrides[path] = value
    return rest, overrides, faults


def read_preset(path: str) -> ConfigDict:
    """Read a preset: a Python file with `get_config()`, or the `config.json` of a run.

    Raises:
      UsageError: if there is no such file, or it makes no configuration.
    """
    file = Path(path)
    if not file.is_file():
        known = ", ".join(sorted(str(p) for p in Path("configs").glob("*.py") if p.stem != "__init__"))
        raise UsageError(f"--config={path}: expected a preset; here are {known or 'none (run from the checkout)'}.")
    try:
        if file.suffix == ".json":
            return config_lib.from_json(file.read_text(encoding="utf-8"))
        return _run_preset(file)
    except UsageError as error:
        raise UsageError(f"--config={path}: {error}") from None
    except Exception as error:  # a preset may raise anything
        raise UsageError(f"--config={path}: {type(error).__name__}: {' '.join(str(error).split())}") from error


def _run_preset(file: Path) -> ConfigDict:
    spec = importlib.util.spec_from_file_location(f"preset_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise UsageError("expected a Python file (.py) or the config.json of a run.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not hasattr(module, "get_config"):
        raise UsageError("expected a file that defines get_config(), found none in it.")
    return module.get_config()


def apply_overrides(config: ConfigDict, overrides: dict[str, str]) -> list[str]:
    """Set the fields, those that name a part first; return a message for each fault."""
    faults = []
    names = [kind.name for kind in parts.KINDS]
    for path in sorted(overrides, key=lambda path: path not in names):
        try:
            before = config_lib.flatten(config)[path] if path in names else None
            config_lib.set_from_text(config, path, overrides[path])
            if path in names and config_lib.flatten(config)[path] != before:
                kind = parts.KINDS[names.index(path)]
                parts.drop_arguments(config, kind, parts.load(kind, overrides[path]))
        except UsageError as error:
            faults.append(str(error))
    return faults


def main(arguments: Sequence[str]) -> int:
    """Run a command line; return the exit status."""
    from contrastive_jax.jobs.machine import processes

    try:
        # First, because a preset or a part may use JAX when it is imported.
        processes.start(*_read_place(arguments))
    except UsageError as error:
        return fail(error)
    return train(arguments)


def train(arguments: Sequence[str]) -> int:
    """Run a command line in a process that has joined the others of its job; return the exit status."""
    try:
        options = parse(arguments)
    except (UsageError, MissingExtraError) as error:
        return fail(error)
    return _train(options)


def _read_place(arguments: Sequence[str]) -> tuple[str | None, int | None, int | None]:
    """The place of this process among those of its job: coordinator, number, index; `parse` reports what is wrong."""
    try:
        given, _ = _build_parser().parse_known_args(split_overrides(arguments)[0])
    except UsageError:
        return None, None, None
    return given.coordinator, given.num_processes, given.process_id


def _train(options: Options) -> int:
    import jax

    from contrastive_jax.jobs import run
    from contrastive_jax.jobs.machine import processes, storage

    storage.silence_repeated_errors()
    name = f"process {jax.process_index()}: " if processes.several() else ""
    try:
        run.run(options.config, options.workdir, steps=options.steps, profile=options.profile)
    except (UsageError, MissingExtraError) as error:
        return fail(error, name)
    except Interrupted as stopped:
        print(f"{name}{stopped}", file=sys.stderr)
        sys.exit(stopped.status)
    except jax.errors.JaxRuntimeError as error:
        if not processes.several():
            raise
        traceback.print_exc()
        return fail(processes.explain(error), name)
    if processes.is_first():
        what = "Pictures and numbers" if options.config.log.pictures else "Numbers"
        print(f"{what} are in {options.workdir}.")
    return 0


def fail(message: object, process: str = "") -> int:
    """Print an error, a line for each fault; return the exit status."""
    for line in str(message).splitlines():
        print(f"{process}error: {line}", file=sys.stderr)
    return 2


def run_as_program(arguments: Sequence[str]) -> NoReturn:
    """Run `main` as a whole process. After a failure, exit at once without waiting for other processes."""
    status = main(arguments)
    if status:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit()
