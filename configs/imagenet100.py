"""ImageNet-100, Lee 2025, Table 4: ResNet-50, 224 pixels, a batch of 512 over all devices.

Command:  python -m experiments.train --config=configs/imagenet100.py --workdir=runs/imagenet100 \
              --config.data.source=folder:PATH
Data:     a folder with train/CLASS/*.JPEG and test/CLASS/*.JPEG for the 100 classes.
Paper:    top-1 of SimCLR -> with VRNS: t=0.1 70.14 -> 69.50; 0.2 73.80 -> 73.94; 0.3 72.30 -> 74.04;
          0.4 69.92 -> 73.12; 0.5 68.60 -> 72.88.
"""

from ml_collections import ConfigDict

from contrastive_jax.jobs.config import default_config


def get_config() -> ConfigDict:
    config = default_config()
    config.epochs = 200
    config.batch_size = 512
    config.data.source = "folder:data/imagenet100"
    config.data.image_size = 224
    config.data.mean = (0.485, 0.456, 0.406)
    config.data.std = (0.229, 0.224, 0.225)
    config.model.name = "resnet50"
    config.model.kwargs.stem = "plain"
    config.model.kwargs.dtype = "bfloat16"
    config.optimizer.learning_rate = 0.1
    config.checkpoint.every = 2000
    config.log.tensorboard_every = 20
    config.evaluation.raw_pixels = False
    return config
