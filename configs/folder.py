"""A folder of your own images, with a subfolder for each class or without labels: ResNet-18 at 64 pixels.

Command:  python -m experiments.train --config=configs/folder.py --workdir=runs/mine --config.data.source=folder:PATH
Data:     PATH/train/CLASS/* and PATH/test/CLASS/*, PATH/CLASS/* (split 80/20), or images without classes at any depth;
          images of any size.
Protocol: Lee 2025, with the plain stem, which suits images of 64 pixels or more.
"""

from ml_collections import ConfigDict

from contrastive_jax.jobs.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.epochs = 200
    config.batch_size = 256
    config.data.source = "folder:data/images"
    config.data.image_size = 64
    config.model.kwargs.stem = "plain"
    return config
