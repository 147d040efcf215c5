"""The default job: scikit-learn's digits.

Protocol: Lee 2025 for small images, on 8x8 greys.
"""

from contrastive_jax.jobs.config import default_config


def get_config():
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
    # 200 epochs at 0.1 are 39,000 steps on CIFAR but 1,000 here: too few for any representation to converge.
    config.evaluation.probe_learning_rate = 1.0
    config.evaluation.probe_epochs = 1000
    config.evaluation.knn_neighbours = 20  # of 1,437
    return config
