"""What can go wrong, by name. Imports nothing, so that anyone can catch an error without what raises it."""


class UsageError(ValueError):
    """What was asked for cannot be done. The message says what was given, what was expected and what to do."""


class SourceError(UsageError):
    """A source of images cannot be read."""


class DamagedError(UsageError):
    """A checkpoint does not hold what was saved. The message says how that showed."""


class StorageError(UsageError):
    """The machine refused to write or read: no space, no permission, too many open files."""


class NonFiniteError(UsageError):
    """The loss, its gradient or the parameters are not finite."""


class MissingExtraError(ImportError):
    """A package that an extra installs is missing. The message names the extra."""


class Interrupted(Exception):
    """A run was asked to end by a signal, and did, with everything saved.

    Attributes:
      status: the exit status of a process that ends so, 128 + the signal's number.
    """

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status
