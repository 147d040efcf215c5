"""CIFAR-10, Lee 2025: ResNet-18 with the 3x3 stem, 200 epochs of SGD.

Command:  python -m experiments.train --config=configs/cifar10.py --workdir=runs/cifar10
Data:     prepared once by TensorFlow Datasets; if it is missing, the run prints how to prepare it.
Paper:    Figures 3 and 4: m in {32, 64, 128, 256, 512}, temperature in {0.07, 0.1, 0.25, 0.5, 1, 2}, with and without
          VRNS (--config.vrns_weight=30). At temperature 2, VRNS raises top-1 from 81 to 86 per cent.
"""

from ml_collections import ConfigDict

from contrastive_jax.jobs.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.epochs = 200
    config.batch_size = 256
    config.data.source = "tfds:cifar10"
    config.data.image_size = 32
    config.data.mean = (0.4914, 0.4822, 0.4465)
    config.data.std = (0.2470, 0.2435, 0.2616)
    return config
