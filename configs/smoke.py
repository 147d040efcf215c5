"""The smallest complete run, for tests: a narrow ResNet-10 on the digits.

Command:  python -m experiments.train --config=configs/smoke.py --workdir=runs/smoke
"""

from ml_collections import ConfigDict

from contrastive_jax.jobs.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.epochs = 2
    config.batch_size = 64
    config.data.source = "digits"
    config.data.image_size = 8
    config.model.name = "resnet10"
    config.model.kwargs.width = 4
    config.model.head_kwargs.out = 16
    config.optimizer.warmup_epochs = 0.5
    config.checkpoint.every = 5
    config.evaluation.every = 1
    config.evaluation.probe_epochs = 20
    return config
