"""Run all studies, one after the other.

python -m experiments.studies [--quick] [--out=runs/studies] [--seed=0]
"""

import sys
import time

from experiments.studies import batch_size, coupling, gradients, mini_batches, optima, precision, separation, study

STUDIES = {
    "optima": optima.optima,
    "separation": separation.separation,
    "mini_batches": mini_batches.mini_batches,
    "gradients": gradients.gradients,
    "batch_size": batch_size.batch_size,
    "coupling": coupling.coupling,
    "precision": precision.precision,
}


def main() -> int:
    """Run every study with the given options; 0 if everything that theory predicts was found."""
    start = time.perf_counter()
    statuses = []
    for name, function in STUDIES.items():
        print(f"\n## {name}\n", flush=True)
        statuses.append(study.main(name, function))
    print(f"\nAll studies: {time.perf_counter() - start:.0f} s")
    return max(statuses)


if __name__ == "__main__":
    sys.exit(main())
