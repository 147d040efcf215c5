"""Train every run of a grid over fields of a preset, and write one table of all results.

    python -m experiments.sweep --config=configs/digits.py --workdir=runs/sweep \\
      --grid="loss.kwargs.temperature=0.1,0.2,0.5 vrns_weight=0,30 seed=0,1,2"

Each cell of the grid is a run of its own in a folder of the workdir. The same command resumes: runs that are done are
skipped, those that failed are tried again. `--workers=2` has two runs going at once, in processes of their own;
`--engine=vmap` trains runs that differ in numbers alone (temperature, weights, learning rate, seed) in one program.
"""

import signal
import sys

from contrastive_jax.errors import MissingExtraError

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would end in a traceback
    try:
        from contrastive_jax.jobs.machine import memory

        memory.restart_with_large_pages()  # before the imports that take long
        from contrastive_jax.jobs.sweeps import program
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    program.run_as_program(sys.argv[1:])
