"""The exception tree. Each class carries the exit code its failure gives the command line.

SimcseError (1)
├── UsageError (2)        an option, setting or argument is wrong
│   └── ConfigError       a setting has a wrong name or value
├── DataError (3)         the data is wrong: row, encoding, no usable rows
├── ArtifactError (4)     a model, index or result folder is damaged, foreign or unsafe
├── ResourceError (5)     the machine lacks space, permission, a lock or a package
├── NumericError (6)      a loss, gradient or embedding is not finite
└── StoppedError (128 + signal)  a signal stopped a run, which can be resumed

SimcseWarning               something was corrected or left out; the command line prints it once
└── TruncationWarning     sentences were truncated to the length limit
"""


class SimcseError(Exception):
    """Base of every error that this package raises; the message is for the user."""

    exit_code = 1


class UsageError(SimcseError):
    """An option, setting or argument is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting has an unknown name or a value out of range."""


class DataError(SimcseError):
    """The data cannot be used; the message names file and line."""

    exit_code = 3


class ArtifactError(SimcseError):
    """A stored model or result is damaged, incomplete, unsafe or not recognized."""

    exit_code = 4


class ResourceError(SimcseError):
    """The machine lacks something: space, permission, a lock, an optional package."""

    exit_code = 5


class NumericError(SimcseError):
    """A loss, gradient or embedding is not finite."""

    exit_code = 6


class StoppedError(SimcseError):
    """A signal stopped a training run, which saved a checkpoint first."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class SimcseWarning(UserWarning):
    """Base of every warning this package gives; the message is for the user."""


class TruncationWarning(SimcseWarning):
    """Sentences were truncated to the length limit."""
