#!/usr/bin/env bash
# Run a job with one task for each GPU of every node. JAX finds the tasks from SLURM's environment. Submit it from the
# root of the repository:
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     --config=configs/imagenet100.py --workdir=/shared/runs/imagenet100
#
# The workdir must be on a file system that all nodes share. If SLURM stops the job and requeues it, the job resumes from
# its last checkpoint. So does a new submission of the same command.
#SBATCH --job-name=contrastive_jax
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
. .venv/bin/activate  # create it once: python3 -m venv .venv && . .venv/bin/activate && pip install -e ".[gpu]"
exec srun --kill-on-bad-exit=1 --label python -u -m experiments.train "$@"
