"""The default job: scikit-learn's digits.

Protocol: Lee 2025 for small images, on 8x8 greys.
"""

from contrastive_jax.training.config import default_config


def get_config():
    config = default_config()
    config.batch_size = 256
    config.epochs = 80
    config.data.source = "digits"
    config.data.image_size = 8
    config.model.width = 16
    config.views.crop_scale = (0.5, 1.0)
    config.views.flip = 0.0
    return config
