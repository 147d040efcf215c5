"""The job's command line, called in the tests' own process."""

from experiments import train


def forget_flags():
    """What an earlier call left: values, and the flags that its overrides of the configuration defined."""
    train.FLAGS.unparse_flags()
    for name in list(train.FLAGS):
        if name.startswith("config."):
            delattr(train.FLAGS, name)
    for name in ("config", "workdir", "steps"):
        train.FLAGS[name].unparse()
