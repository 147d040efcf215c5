#!/usr/bin/env bash
# One task a GPU on every node; JAX finds the tasks by what SLURM tells them. From the repository's root:
#
#   sbatch --nodes=2 --gpus-per-node=8 --ntasks-per-node=8 launch/slurm.sh \
#     --config=configs/imagenet100.py --workdir=/shared/runs/imagenet100
#
# The workdir has to be on a file system that all nodes share. A job that SLURM ends and queues again goes on from its
# last checkpoint, as does the same command given again.
#SBATCH --job-name=contrastive_jax
#SBATCH --cpus-per-task=8
#SBATCH --time=24:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
set -euo pipefail
. .venv/bin/activate  # made by: python3 -m venv .venv && . .venv/bin/activate && pip install -e ".[gpu]"
exec srun --kill-on-bad-exit=1 --label python -u -m experiments.train "$@"
