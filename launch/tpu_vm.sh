#!/usr/bin/env bash
# Run a job on all hosts of a Cloud TPU slice. The repository must be in ~/contrastive_jax on every host.
#
#   NAME=my-slice ZONE=us-west4-a launch/tpu_vm.sh \
#     --config=configs/imagenet100.py --workdir=/mnt/shared/runs/imagenet100
#
# NAME and ZONE identify the slice. The workdir must be on a file system that all hosts share, for example a bucket
# mounted with Cloud Storage FUSE. To resume from the last checkpoint, run the same command again.
set -euo pipefail
: "${NAME:?expected the name of the slice}" "${ZONE:?expected the zone of the slice}"
job="cd ~/contrastive_jax && python3 -m venv .venv && . .venv/bin/activate && pip install -q -e '.[tpu]'"
job="$job && python -u -m experiments.train $(printf '%q ' "$@")"
exec gcloud compute tpus tpu-vm ssh "$NAME" --zone="$ZONE" --worker=all --command="$job"
