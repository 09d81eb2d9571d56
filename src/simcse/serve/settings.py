"""What a server is told: where it listens, who may call, and how much it takes on."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from simcse.errors import ConfigError, DataError

KEYS_VARIABLE = "SIMCSE_API_KEYS"


@dataclass(frozen=True)
class ServeConfig:
    """Settings of `simcse serve`.

    Attributes:
        host: address to listen on; one that others can reach needs keys.
        port: port to listen on; 0 lets the system choose.
        keys: API keys that are accepted; several, so that one can be replaced by the next.
        keys_file: file with one key a line, read again whenever it changes.
        writable: whether `/v1/index/add` is open.
        threads: of the model; `None` is one less than torch has, which is left to read requests.
        batch_tokens: tokens computed at once.
        queue_tokens: tokens that may wait, whoever asks.
        max_wait: seconds a request may be expected to take; more is refused with 429.
        deadline: seconds after which a request that still waits gets 504, its work undone.
        body_bytes: largest request body.
        body_seconds: time a client has to send it.
        header_seconds: time a client has to send a request's headers.
        drain_seconds: time between SIGTERM, which makes `/ready` fail, and the last accept.
        exit_seconds: time the requests in flight have after that.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    keys: tuple[str, ...] = ()
    keys_file: str | None = None
    writable: bool = False
    threads: int | None = None
    batch_tokens: int = 1024
    queue_tokens: int = 1 << 19  # the largest request there can be: 2,048 inputs of 256 tokens
    max_wait: float = 0.5
    deadline: float = 30.0
    body_bytes: int = 8 << 20
    body_seconds: float = 20.0
    header_seconds: float = 10.0
    drain_seconds: float = 2.0
    exit_seconds: float = 30.0

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "queue_tokens", "max_wait", "deadline", "body_bytes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"serve.{name} must be > 0, got {getattr(self, name)}")
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"serve.threads must be at least 1, got {self.threads}")
        if not all(len(key) >= 16 and key.isascii() and key.isprintable() for key in self.keys):
            raise ConfigError("an API key must have at least 16 printable ASCII characters")
        if not (self.is_loopback or self.keys or self.keys_file):
            raise ConfigError(
                f"{self.host} can be reached by others and there is no API key: set "
                f"{KEYS_VARIABLE}, pass --keys-file, or listen on 127.0.0.1"
            )

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.strip("[]")).is_loopback
        except ValueError:
            return False


def parse_keys(text: str) -> tuple[str, ...]:
    """Return the keys in a text, separated by white space or commas; ``#`` begins a comment."""
    lines = (line.partition("#")[0] for line in text.splitlines())
    return tuple(key for line in lines for key in line.replace(",", " ").split())


def read_keys(path: Path) -> tuple[str, ...]:
    """Read a file of keys.

    Raises:
        DataError: the file cannot be read or holds no key.
    """
    try:
        keys = parse_keys(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the API keys in {path}: {error}") from error
    if not keys:
        raise DataError(f"{path} holds no API key")
    return keys
