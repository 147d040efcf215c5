#!/usr/bin/env bash
# Run a job on all hosts of a Cloud TPU slice, on which the repository lies in ~/contrastive_jax:
#
#   NAME=my-slice ZONE=us-west4-a launch/tpu_vm.sh \
#     --config=configs/imagenet100.py --workdir=/mnt/shared/runs/imagenet100
#
# NAME and ZONE are those of the slice. The workdir has to be on a file system that all hosts share, for example a bucket
# mounted with Cloud Storage FUSE. The same command again goes on from the last checkpoint.
set -euo pipefail
: "${NAME:?expected the name of the slice}" "${ZONE:?expected the zone of the slice}"
job="cd ~/contrastive_jax && python3 -m venv .venv && . .venv/bin/activate && pip install -q -e '.[tpu]'"
job="$job && python -u -m experiments.train $(printf '%q ' "$@")"
exec gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$job"
