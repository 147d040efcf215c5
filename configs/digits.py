"""The default run: the digits of scikit-learn, which need no download.

Command:  python -m experiments.train --config=configs/digits.py --workdir=runs/digits
Protocol: Lee 2025 for small images, applied to greyscale images of 8x8 pixels.
"""

from ml_collections import ConfigDict

from contrastive_jax.jobs.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.batch_size = 256
    config.epochs = 120
    config.checkpoint.every = 100
    config.data.source = "digits"
    config.data.image_size = 8
    config.model.kwargs.width = 16
    config.loss.kwargs.temperature = 0.5
    config.views.crop_scale = (0.5, 1.0)
    config.views.flip = 0.0
    # The protocol's 200 epochs at 0.1 are 39,000 steps on CIFAR but only 1,000 here, too few for a probe to converge.
    config.evaluation.probe_learning_rate = 1.0
    config.evaluation.probe_epochs = 1000
    config.evaluation.knn_neighbours = 20  # of 1,437 training images
    return config
