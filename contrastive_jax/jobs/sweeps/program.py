"""The command line of a sweep."""

import argparse
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import jax
from ml_collections import ConfigDict

from contrastive_jax.errors import Interrupted, MissingExtraError, UsageError
from contrastive_jax.jobs import command_line, opening, parts, weights
from contrastive_jax.jobs import job as job_lib
from contrastive_jax.jobs.logs.counter import Counter
from contrastive_jax.jobs.machine import processes, storage
from contrastive_jax.jobs.sweeps import cluster, local, results
from contrastive_jax.jobs.sweeps.grid import Cell, make_cells, parse_grid

ENGINES = ("processes", "vmap", "slurm")


class Options(NamedTuple):
    """The options of a sweep."""

    config: str  # the path of the preset
    overrides: dict[str, str]  # of all cells
    cells: list[Cell]
    workdir: Path
    workers: int | None = None
    engine: str = "processes"
    slurm: dict[str, Any] | None = None  # what a job asks for
    most: int = 64  # runs in one program
    steps: int | None = None
    cell: int | None = None
    list: bool = False


def _build_parser() -> command_line.Parser:
    parser = command_line.Parser(
        prog="python -m experiments.sweep",
        description="Train every run of a grid over fields of a preset, and write one table of all results.",
        epilog="Any field can be set for all runs: --config.epochs=10.",
        allow_abbrev=False,
    )
    parser.add_argument("--config", required=True, help="the preset: a file of configs/, or the config.json of a run")
    parser.add_argument(
        "--grid", required=True, action="append", metavar="FIELD=VALUE,VALUE ...", help="the fields that vary"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="the folder of the sweep; each run has one in it")
    parser.add_argument("--engine", default="processes", choices=ENGINES, help="how they are run (%(default)s)")
    parser.add_argument("--workers", type=int, help="processes at once, which share the cores (1), or jobs (256)")
    parser.add_argument("--slurm", metavar="NAME=VALUE ...", help="with --engine=slurm: what each job asks for")
    parser.add_argument("--most", type=int, default=64, help="with --engine=vmap: runs in one program (%(default)s)")
    parser.add_argument("--steps", type=int, help="stop each run after this many steps in total")
    parser.add_argument("--cell", type=int, metavar="K", help="run K alone, from 0, for an array of jobs")
    parser.add_argument("--list", action="store_true", help="print the runs and their folders, and start none")
    return parser


def parse(arguments: Sequence[str]) -> Options:
    """Parse a command line, and make the cells of its grid.

    Raises:
      UsageError: all that is wrong with it, a line each.
    """
    rest, overrides, faults = command_line.split_overrides(arguments)
    try:
        given, unknown = _build_parser().parse_known_args(rest)
    except UsageError as error:
        raise UsageError("\n".join([*faults, str(error)])) from None
    faults += [f"{argument!r} is not an option; see --help." for argument in unknown]
    for name in ("workers", "most", "steps"):
        if getattr(given, name) is not None and getattr(given, name) < 1:
            faults.append(f"--{name}={getattr(given, name)}: expected at least 1.")
    if len(given.grid) > 1:
        faults.append(f"--grid: expected it once, got it {len(given.grid)} times; separate its fields by spaces.")
    if given.engine == "vmap" and (given.workers or 1) > 1:
        faults.append(f"--workers={given.workers}: expected 1 with --engine=vmap, which uses the whole machine.")
    slurm = None
    try:
        slurm = _parse_slurm(given)
    except UsageError as error:
        faults.append(str(error))
    cells: list[Cell] = []
    if given.engine != "vmap" and given.cell is None:
        jax.config.update("jax_platforms", "cpu")  # this process leaves the memory of GPUs to its workers
    try:
        cells = make_cells(command_line.read_preset(given.config), overrides, parse_grid(given.grid[0]))
    except UsageError as error:
        faults.append(str(error))
    if cells and given.cell is not None and not 0 <= given.cell < len(cells):
        faults.append(f"--cell={given.cell}: expected from 0 to {len(cells) - 1}, the runs of the grid.")
    if faults:
        raise UsageError("\n".join(faults))
    chosen = (given.workdir, given.workers, given.engine, slurm, given.most, given.steps, given.cell, given.list)
    return Options(given.config, overrides, cells, *chosen)


def _parse_slurm(given: argparse.Namespace) -> dict[str, Any] | None:
    if given.engine != "slurm":
        if given.slurm is not None:
            raise UsageError(f"--slurm: expected it with --engine=slurm alone, got --engine={given.engine}.")
        return None
    return cluster.parse_parameters(given.slurm or "")


def main(arguments: Sequence[str]) -> int:
    """Run a command line; return the exit status: 0 if all runs are done, 1 if some failed, 2 for a wrong command."""
    try:
        if _is_one_cell(arguments):
            processes.start()  # first, because a preset or a check of its fields may use JAX
        options = parse(arguments)
        if options.list:
            print("\n".join(f"{cell.number}\t{options.workdir / cell.name}" for cell in options.cells))
            return 0
        if options.cell is not None:
            return command_line.train(train_arguments(options, options.cells[options.cell]))
        with storage.explain_refusals(options.workdir, "The same command resumes the sweep."):
            return _sweep(options)
    except (UsageError, MissingExtraError) as error:
        return command_line.fail(error)
    except Interrupted as stopped:
        print(stopped, file=sys.stderr)
        return stopped.status


def _is_one_cell(arguments: Sequence[str]) -> bool:
    """Whether a command line runs one cell in this process, which may be one of several; `parse` says what is wrong."""
    try:
        given, _ = _build_parser().parse_known_args(command_line.split_overrides(arguments)[0])
    except UsageError:
        return False
    return given.cell is not None and not given.list


def train_arguments(options: Options, cell: Cell) -> list[str]:
    """The arguments of `experiments.train` for a cell."""
    fields = {**options.overrides, **cell.texts}
    given = [f"--config={options.config}", f"--workdir={options.workdir / cell.name}"]
    given += [] if options.steps is None else [f"--steps={options.steps}"]
    return given + [f"--config.{path}={text}" for path, text in fields.items()]


def _sweep(options: Options) -> int:
    """Run what is not done; return the exit status."""
    cells, workdir = options.cells, options.workdir
    job_lib.check_workdir(workdir)
    executor = None
    if options.slurm is not None:
        folder = workdir / results.OUTPUT / "slurm" / time.strftime("%Y-%m-%dT%H-%M-%S")
        executor = cluster.make_executor(folder, options.slurm, jobs=options.workers)
    _record_weights(cells)
    for line in results.check_folders(cells, workdir):
        print(line, file=sys.stderr)
    opened = _open_data([cell.config for cell in _find_left(options)])
    with storage.hold_lock(workdir):
        left = _find_left(options)  # of which a sweep that has just ended may have done some
        results.check_data(cells, workdir, opened, done={cell.name for cell in cells} - {cell.name for cell in left})
        if len(left) < len(cells):
            print(f"{len(cells) - len(left)} of {len(cells)} runs are done already.", file=sys.stderr)
        sweep = _Sweep(options, left)
        with Counter("Sweep", len(cells), start=len(cells) - len(left), unit="run") as sweep.counter:
            if executor is not None:
                sweep.run_jobs(executor)
            elif options.engine == "vmap":
                sweep.run_stacks()
            else:
                sweep.run_processes()
        path = results.write_results(cells, workdir, done=sweep.done)
    if sweep.failures:
        lines = [f"{workdir / name}: {why}" for name, why in sweep.failures.items()]
        advice = f"{len(lines)} of {len(cells)} runs failed; the same command tries them again, and them alone."
        print("\n".join([*lines, advice]), file=sys.stderr)
    print(f"{path} has a row for each run that is done.")
    return 1 if sweep.failures else 0


def _find_left(options: Options) -> list[Cell]:
    """The cells whose runs are not done."""
    return [cell for cell in options.cells if not results.is_done(cell, options.workdir, steps=options.steps)]


def _record_weights(cells: Sequence[Cell]) -> None:
    """Record the digest of each file of weights, so that a run that began with another one differs from its cell."""
    found: dict[tuple[str | None, str | None], str | None] = {}
    for cell in cells:
        model = cell.config.model
        key = (model.weights, model.weights_sha256)
        if key not in found:
            weights.record(cell.config)
            found[key] = model.weights_sha256
        model.weights_sha256 = found[key]


def _open_data(configs: Sequence[ConfigDict]) -> dict[str, Any]:
    """Open every data set once: what cannot be opened would end each run in the same words.

    Returns:
      {`results.name_data`: {split: fingerprint of its images}}.

    Raises:
      UsageError: a data set is missing or broken.
    """
    found = {results.name_data(config): config for config in configs}
    return {
        name: opening.fingerprint(opening.open_data(config, parts.resolve(config, parts.NONE)))
        for name, config in found.items()
    }


class _Sweep:
    """Runs what is left, and keeps count of what failed."""

    counter: Counter

    def __init__(self, options: Options, left: Sequence[Cell]) -> None:
        self._options, self._left = options, left
        self.failures: dict[str, str] = {}
        self.done = {cell.name for cell in options.cells} - {cell.name for cell in left}

    def run_processes(self) -> None:
        """Run each in a process of its own."""
        if tasks := self._list_tasks("--num_processes=1"):
            workers = min(self._options.workers or 1, len(tasks))
            local.run_all(tasks, local.divide_machine(workers), self._end_task)

    def run_jobs(self, executor: Any) -> None:
        """Run each as a job of SLURM, whose processes find each other."""
        if tasks := self._list_tasks():
            cluster.run_all(executor, tasks, self._end_task)

    def _list_tasks(self, *options: str) -> list[local.Task]:
        train = [sys.executable, "-u", "-m", "experiments.train", *options]
        folder = self._options.workdir / results.OUTPUT
        return [
            local.Task(cell.name, [*train, *train_arguments(self._options, cell)], folder / f"{cell.name}.txt")
            for cell in self._left
        ]

    def _end_task(self, task: local.Task, status: int, why: str = "") -> None:
        why = why or (f"ended by {signal.Signals(-status).name}" if status < 0 else "")
        said = f"{why}; its last line is: " if why else ""
        self._end(task.name, None if status == 0 else f"{said}{local.read_error(task.output)} ({task.output})")

    def run_stacks(self) -> None:
        """Run them in as few programs as hold them."""
        from contrastive_jax.jobs.sweeps import stack, stacked_runs

        storage.silence_repeated_errors()
        most = self._options.most
        groups = [[self._left[k] for k in found] for found in stack.group([cell.config for cell in self._left])]
        for cells in [found[k : k + most] for found in groups for k in range(0, len(found), most)]:
            self._run_stack(cells, stacked_runs.run_stack)

    def _run_stack(self, cells: Sequence[Cell], run_stack: Callable[..., None]) -> None:
        workdir, ended = self._options.workdir, set[str]()

        def end(k: int, error: UsageError | None) -> None:
            ended.add(cells[k].name)
            self._end(cells[k].name, None if error is None else "; ".join(str(error).splitlines()))

        try:
            configs, folders = [cell.config for cell in cells], [workdir / cell.name for cell in cells]
            run_stack(configs, folders, end, steps=self._options.steps)
        except (UsageError, jax.errors.JaxRuntimeError) as error:
            lines = str(error).splitlines()
            if not isinstance(error, UsageError):  # of the devices
                lines = lines[:1]
                if len(cells) > 1 and "RESOURCE_EXHAUSTED" in lines[0]:
                    lines.append(f"the program had {len(cells)} runs, and --most={len(cells) // 2} takes fewer")
            for cell in cells:
                if cell.name not in ended:
                    self._end(cell.name, "; ".join(lines))

    def _end(self, name: str, error: str | None) -> None:
        if error is None:
            self.done.add(name)
        else:
            self.failures[name] = error
        results.write_results(self._options.cells, self._options.workdir, done=self.done)
        self.counter.add(1)


def run_as_program(arguments: Sequence[str]) -> NoReturn:
    """Run `main` as a whole process."""
    status = main(arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    if status:
        os._exit(status)  # a run of several processes may have others that hang
    sys.exit()
