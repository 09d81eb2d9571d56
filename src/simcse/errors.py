"""The exception tree. Each class carries the exit code its failure gives the command line.

SimcseError (1)
├── UsageError (2)        the call is wrong: option, setting, argument
│   └── ConfigError       a setting has a wrong name or value
├── DataError (3)         the user's data is wrong: row, encoding, no usable rows
├── ArtifactError (4)     a model, index or result folder is damaged, foreign or unsafe
├── ResourceError (5)     the machine refuses: disk full, read-only, locked, extra not installed
├── NumericError (6)      training or evaluation left the finite numbers
└── StoppedError (128 + signal)  a signal asked a run to stop, and it can be resumed

SimcseWarning               something was mended or left out; the command line says it once
└── TruncationWarning     sentences were cut to the length limit
"""


class SimcseError(Exception):
    """Base of every error this package raises on purpose; the message is for the user."""

    exit_code = 1


class UsageError(SimcseError):
    """The call itself is wrong."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting has an unknown name or a value out of range."""


class DataError(SimcseError):
    """The user's data cannot be used as it is; the message names file and line."""

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
    """A signal asked a training run to stop; it saved a checkpoint first."""

    def __init__(self, message: str, signal: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal


class SimcseWarning(UserWarning):
    """Base of every warning this package gives; the message is for the user."""


class TruncationWarning(SimcseWarning):
    """Sentences were cut to the length limit."""
