"""Train an encoder contrastively, watch the similarities, evaluate it.

    python -m experiments.train --config=configs/digits.py --workdir=runs/digits

Any field can be overridden: --config.loss.kwargs.temperature=0.1. A run's own config.json serves as a preset too.

On Cloud TPU, SLURM and Kubernetes the processes of a job find each other (see launch/); elsewhere tell each of them:

    ... --coordinator=HOST:PORT --num_processes=2 --process_id=0
"""

import signal
import sys

from contrastive_jax.errors import MissingExtraError

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own would end in a traceback, or in no end at all
    try:
        from contrastive_jax.jobs.machine import memory

        memory.restart_with_large_pages()  # before the imports that take long
        from contrastive_jax.jobs import command_line
    except MissingExtraError as error:
        sys.exit(f"error: {error}")
    command_line.run_as_program(sys.argv[1:])
