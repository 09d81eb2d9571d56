"""Settings of a server: its address, its keys and its limits."""

import ipaddress
from dataclasses import dataclass
from pathlib import Path

from simcse.errors import ConfigError, DataError

KEYS_VARIABLE = "SIMCSE_API_KEYS"


@dataclass(frozen=True)
class ServeConfig:
    """Settings of `simcse serve`."""

    host: str = "127.0.0.1"  # an address that other machines can reach needs keys
    port: int = 8000  # 0 lets the system choose
    keys: tuple[str, ...] = ()  # API keys; several, so that one can replace another
    keys_file: str | None = None  # one key a line, read again whenever it changes
    writable: bool = False  # whether `/v1/index/add` is open
    threads: int | None = None  # of the model; `None` leaves one core to read requests
    batch_tokens: int = 1024  # computed at once; a single longer input is still taken
    queue_tokens: int = 1 << 19  # that may wait: the largest request, 2,048 inputs of 256 tokens
    max_wait: float = 0.5  # seconds a request may be expected to wait; a longer one gets 429
    deadline: float = 30.0  # seconds until a waiting request gets 504 and its work is dropped
    body_bytes: int = 8 << 20  # of the largest request
    body_seconds: float = 20.0  # that a client has to send a body
    header_seconds: float = 10.0  # for the headers of the next request, idle time included
    drain_seconds: float = 2.0  # between SIGTERM, which makes `/ready` fail, and the last accept
    exit_seconds: float = 30.0  # that running requests have after that

    def __post_init__(self) -> None:
        for name in ("batch_tokens", "queue_tokens", "max_wait", "deadline", "body_bytes"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"serve.{name} must be > 0, got {getattr(self, name)}")
        if not 0.001 <= self.header_seconds <= 60:  # granian's limits
            raise ConfigError(
                f"serve.header_seconds must be between 0.001 and 60, got {self.header_seconds}"
            )
        if self.threads is not None and self.threads < 1:
            raise ConfigError(f"serve.threads must be at least 1, got {self.threads}")
        if not all(len(key) >= 16 and key.isascii() and key.isprintable() for key in self.keys):
            raise ConfigError("an API key must have at least 16 printable ASCII characters")
        if not (self.is_loopback or self.keys or self.keys_file):
            raise ConfigError(
                f"other machines can reach {self.host}, but there is no API key; set "
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
