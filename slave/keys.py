"""Where the key is found: argument, environment, file.

The key is what master and slaves have in common and nobody else knows.  It is searched in this order: the argument
(bytes), the environment variable ``PARALLEL_AUTHKEY``, the file ``~/.config/parallel/authkey``.  Variable and file hold
text; the key is that text's bytes without the white space around it.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from .errors import KeyTrouble

VARIABLE = "PARALLEL_AUTHKEY"
SHORTEST = 16  # bytes: 128 bits, below which an offline guess at the handshake's HMAC becomes thinkable


def default_file() -> Path:
    """The file both sides look at when nothing else names the key."""
    return Path.home() / ".config" / "parallel" / "authkey"


def find_key(authkey: bytes | None = None, key_file: str | Path | None = None, *, create: bool = False) -> bytes:
    """The key by the order of search; with ``create`` (the master) the default file is made if it is missing.

    Raises `KeyTrouble` where there is none, where it is shorter than 16 bytes, or where others may read its file.
    """
    if authkey is not None:
        return _long_enough(authkey, "the authkey argument")
    if key_file is not None:
        return _read(Path(key_file).expanduser())
    text = os.environ.get(VARIABLE)
    if text is not None:
        return _long_enough(text.strip().encode(), f"the environment variable {VARIABLE}")
    path = default_file()
    if create and not path.exists():
        _make(path)
    return _read(path)


def _read(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            if os.name == "posix" and stat.S_IMODE(os.fstat(file.fileno()).st_mode) & 0o077:
                raise KeyTrouble(
                    f"the key file {path} may be read or written by others; make it yours alone: chmod 600 {path}"
                )
            text = file.read(65536)
    except FileNotFoundError:
        raise KeyTrouble(
            f"no key: {path} does not exist and {VARIABLE} is not set; copy the master's key file there "
            f"(and chmod 600 it), or name one with --key-file"
        ) from None
    except OSError as error:
        raise KeyTrouble(f"the key file {path} cannot be read: {error.strerror}") from None
    return _long_enough(text.strip(), f"the key file {path}")


def _long_enough(key: bytes, where: str) -> bytes:
    if not isinstance(key, bytes):
        raise KeyTrouble(f"{where} must be bytes, not {type(key).__name__}")
    if len(key) < SHORTEST:
        raise KeyTrouble(f"{where} holds a key of {len(key)} bytes; it must be at least {SHORTEST} bytes long")
    return key


def _make(path: Path) -> None:
    """Write a new random key, so that no reader ever sees a half-written or foreign-readable one."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_hex(32) + "\n")
        try:
            os.link(draft, path)  # unlike rename, link never replaces the key that another master just made
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(draft, path)
            return
        os.unlink(draft)
    except OSError as error:
        raise KeyTrouble(
            f"the key file {path} cannot be made: {error.strerror}; set {VARIABLE} or pass authkey="
        ) from None
