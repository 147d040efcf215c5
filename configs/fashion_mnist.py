"""Fashion-MNIST with the protocol of Lee 2025 for CIFAR; greyscale images have no saturation, hue or colour to drop.

Command:  python -m experiments.train --config=configs/fashion_mnist.py --workdir=runs/fashion_mnist
Data:     60,000 images of 28x28, prepared once by TensorFlow Datasets; if they are missing, the run prints how to
          prepare them.
"""

from ml_collections import ConfigDict

from contrastive_jax.jobs.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.epochs = 200
    config.batch_size = 256
    config.data.source = "tfds:fashion_mnist"
    config.data.image_size = 28
    config.data.mean = (0.2860,)  # mean and standard deviation of the training pixels
    config.data.std = (0.3530,)
    config.views.blur = 0.0
    return config
