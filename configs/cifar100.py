"""CIFAR-100, Lee 2025, Table 1: SimCLR at temperature 0.2, with and without VRNS at weight 30.

Command:  python -m experiments.train --config=configs/cifar100.py --workdir=runs/cifar100 --config.vrns_weight=30
Data:     prepared once by TensorFlow Datasets; if it is missing, the run prints how to prepare it.
Paper:    variance of the negative similarities for m = 32, 64, 128, 256, 512:
          SimCLR 0.1649, 0.1505, 0.1444, 0.1404, 0.1396; with VRNS 0.1008, 0.0952, 0.0929, 0.0921, 0.0917.
"""

from ml_collections import ConfigDict

from contrastive_jax.jobs.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.epochs = 200
    config.batch_size = 256
    config.data.source = "tfds:cifar100"
    config.data.image_size = 32
    config.data.mean = (0.5071, 0.4865, 0.4409)
    config.data.std = (0.2673, 0.2564, 0.2762)
    return config
