"""Small jobs for the tests of training."""

from configs import smoke


def config(**overrides):
    """The smoke preset with dotted fields replaced, e.g. `**{"loss.name": "dcl"}`."""
    result = smoke.get_config()
    for path, value in overrides.items():
        result.update_from_flattened_dict({path: value})
    return result
