"""Where the key is found: argument, environment, file, and at last whoever sits at the terminal.

The key is what master and slaves have in common and nobody else knows.  It is searched in this order: the argument
(bytes), the environment variable ``PARALLEL_AUTHKEY``, the file ``~/.config/parallel/authkey``.  Variable and file hold
text; the key is that text's bytes (UTF-8), without white space, quotes and byte order mark around it.
"""

from __future__ import annotations

import codecs
import os
import shlex
import sys
import warnings
from typing import TYPE_CHECKING, Any, Callable

from .errors import KeyTrouble
from .private_files import NO_WAIT, check_folder, is_ours, kind, make_folder, owner, write_new

if TYPE_CHECKING:
    from pathlib import Path  # slow to import, and of no use to a slave that is told its key

VARIABLE = "PARALLEL_AUTHKEY"
SHORTEST = 16  # bytes: 128 bits, below which an offline guess at the handshake's HMAC becomes thinkable

_LONGEST = 65536  # bytes of a key file
_TRIES = 3  # to paste a key
_QUOTES = (('"', '"'), ("'", "'"), ("\u201c", "\u201d"))
_ENCODINGS = (  # the longer marks first: that of UTF-32 begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_BY_OTHER_WAYS = f"set {VARIABLE}, or give it to the program, Manager(authkey=...), and to slaves, --key-file FILE"
_NOT_ASKED = (
    f"set {VARIABLE} to the key or a token (python3 -m parallel key --token shows one there), or name a file of "
    f"either, --key-file; a slave that is started in a terminal asks for it"
)
_ANEW = "bring the master's key here again (python3 -m parallel key, there, tells how)"
_ELSEWHERE = "keep the key in a folder of your own"


THE_KEY = bytes(16)  # the name of the key itself


class Key(bytes):
    """The key, or a secret that was derived from it (token.py): bytes that no repr, traceback or log shows.

    ``ident``: 16 bytes by which the master knows which secret it is; they are no secret.
    """

    ident: bytes

    def __new__(cls, secret: bytes, ident: bytes = THE_KEY) -> Key:
        """A copy of ``secret`` with that name."""
        made = super().__new__(cls, secret)
        made.ident = ident
        return made

    def __repr__(self) -> str:
        return "<key>"

    __str__ = __repr__


def new_key() -> Key:
    """A key for one run, which no file keeps: for a manager that starts all its slaves on this machine."""
    import secrets  # slow to import, and of no use to a slave that is told its key

    return Key(secrets.token_hex(32).encode())


def default_file() -> Path:
    """The file both sides look at when nothing else names the key.  Raises `KeyTrouble` if there is no home folder."""
    from pathlib import Path

    return Path(_home()) / ".config" / "parallel" / "authkey"


def find_key(
    authkey: bytes | None = None,
    key_file: str | Path | None = None,
    *,
    create: bool = False,
    ask: bool = False,
    check: Callable[[Key], object] = lambda key: None,
) -> Key:
    """The key by the order of search.

    ``key_file``: a file's name, or '-' for a line on stdin.  ``create`` (the master): the default file is made if it is
    missing.  ``ask`` (the slave): if there is no key and this is a terminal, its user is asked for it; what ``check``
    raises `KeyTrouble` for has to be typed again.

    Raises `KeyTrouble` where there is none, where it is no text of 16 bytes or more, and where others may have a hand
    in its file; never OSError.
    """
    if authkey is not None:
        return _long_enough(authkey, "the authkey argument")
    if key_file == "-":
        return _on_stdin()
    if key_file is not None:
        path = _expanded(key_file)
        return _read(path, f"the key file {path} does not exist")
    text = os.environ.get(VARIABLE)
    if text is not None:
        return _key_in(os.fsencode(text), f"the environment variable {VARIABLE}")
    try:
        path = default_file()
    except KeyTrouble as trouble:
        return _asked_for(str(trouble), ask, check)
    if create and not os.path.lexists(path):
        make_key(path)
    if not create and _is_missing(path):
        return _asked_for(f"no key: {path} does not exist and {VARIABLE} is not set", ask, check)
    return _read(path, f"the key file {path} has just vanished")


def forget_variable() -> None:
    """Take the key out of this program's environment, so that those which it starts do not see it there.

    On Linux also out of what /proc shows as the environment of this process and its forks.
    """
    if sys.platform == "linux" and VARIABLE in os.environ:
        _wipe_variable()
    os.environ.pop(VARIABLE, None)


def _wipe_variable() -> None:
    try:
        import ctypes

        library = ctypes.CDLL(None)
        library.getenv.restype = ctypes.c_void_p
        place = library.getenv(VARIABLE.encode())
        if place:
            ctypes.memset(place, ord("-"), len(ctypes.string_at(place)))
    except (ImportError, OSError, AttributeError):
        pass  # a Python without ctypes


# -- where it is


def _home() -> str:
    if os.name != "posix":
        return os.path.expanduser("~")
    home = os.environ.get("HOME")
    if not home:
        try:
            import pwd

            home = pwd.getpwuid(os.getuid()).pw_dir
        except (ImportError, KeyError):
            home = ""
    if not os.path.isabs(home):
        why = f"HOME is {home!r}, which is no full path" if home else f"uid {os.getuid()} has no home folder"
        raise KeyTrouble(f"no key: {why}, so there is no place for the key file; {_BY_OTHER_WAYS}")
    return home


def _expanded(key_file: str | Path) -> Path:
    from pathlib import Path

    try:
        return Path(key_file).expanduser()
    except (RuntimeError, KeyError):
        raise KeyTrouble(f"the key file {key_file} has no place: there is no such user's home folder") from None


def _is_missing(path: Path) -> bool:
    """Whether there is no file, and no link, as far as this user may know."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def _on_stdin() -> Key:
    try:
        data = sys.stdin.buffer.readline(_LONGEST + 1)
    except (AttributeError, OSError, ValueError):
        raise KeyTrouble("no key can be read from stdin, which is closed") from None
    return _key_in(data, "the line on stdin")


def _asked_for(trouble: str, ask: bool, check: Callable[[Key], object]) -> Key:
    """The key that the user types.  Raises `KeyTrouble`, which tells the trouble, where nobody can be asked."""
    if not (ask and can_ask()):
        remedy = f"copy the master's key file there (and chmod 600 it), or {_NOT_ASKED if ask else _BY_OTHER_WAYS}"
        raise KeyTrouble(trouble if _BY_OTHER_WAYS in trouble else f"{trouble}; {remedy}")
    return ask_for_key(trouble, check)


def can_ask() -> bool:
    """Whether somebody sits at a terminal here who could be asked."""
    return is_terminal(sys.stdin) and is_terminal(sys.stderr)


def ask_for_key(trouble: str, check: Callable[[Key], object] = lambda key: None) -> Key:
    """Ask the user at the terminal, since there is that trouble.  Raises `KeyTrouble` if no usable key is typed."""
    print(f"slave: {trouble}", file=sys.stderr)
    print("slave: on the master's machine this shows a token: python3 -m parallel key --token", file=sys.stderr)
    for _ in range(_TRIES):
        typed = _typed().encode("utf-8", "surrogateescape")
        try:
            key = _key_in(typed, "what was typed")
            check(key)
            return key
        except KeyTrouble as error:
            print(f"slave: {error}", file=sys.stderr)
    raise KeyTrouble(f"no usable key was typed; {_BY_OTHER_WAYS}")


def _typed() -> str:
    import getpass

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)
            return getpass.getpass("slave: paste the token, or the key, here; it will not be shown: ")
    except EOFError:
        raise KeyTrouble(f"no key was typed; {_BY_OTHER_WAYS}") from None
    except (getpass.GetPassWarning, OSError):
        raise KeyTrouble(f"this terminal cannot hide what is typed; {_BY_OTHER_WAYS}") from None


def is_terminal(stream: Any) -> bool:
    """Whether a stream of `sys`, which may be None or closed, is a terminal."""
    try:
        return stream is not None and bool(stream.isatty())
    except ValueError:
        return False


# -- reading it


def _read(path: Path, missing: str) -> Key:
    where = f"the key file {path}"
    try:
        _check_place(path, os.stat(path))  # before it is opened: to open a device may do something
        handle = os.open(path, os.O_RDONLY | NO_WAIT)
        try:
            _check_place(path, os.fstat(handle))
            data = os.read(handle, _LONGEST + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        if os.path.islink(path):
            missing = f"{where} is a link to {os.readlink(path)}, which does not exist"
        raise KeyTrouble(f"{missing}; {_ANEW}, or {_BY_OTHER_WAYS}") from None
    except OSError as error:
        raise KeyTrouble(f"{where} cannot be read: {error.strerror}; {_BY_OTHER_WAYS}") from None
    _check_folders(path)
    return _key_in(data, where)


def _check_place(path: Path, facts: os.stat_result) -> None:
    where = f"the key file {path}"
    strange = kind(facts.st_mode)
    if strange:
        pipe = "; a slave reads from a pipe with --key-file -" if strange == "a FIFO" else ""  # <(a command)
        raise KeyTrouble(f"{where} is {strange}, and no file; {_BY_OTHER_WAYS}{pipe}")
    if not is_ours(facts):
        raise KeyTrouble(
            f"{where} belongs to {owner(facts)}, who may read and change it; make a copy that belongs to you, "
            f"or {_BY_OTHER_WAYS}"
        )
    if os.name == "posix" and facts.st_mode & 0o077:
        raise KeyTrouble(
            f"{where} may be read or written by others; make it yours alone: chmod 600 {shlex.quote(str(path))}"
        )


def _check_folders(path: Path) -> None:
    """Raises `KeyTrouble` if others might have put the file there, or the link that leads to it."""
    try:
        for folder in dict.fromkeys([os.path.dirname(os.path.abspath(path)), os.path.dirname(os.path.realpath(path))]):
            check_folder(folder, _ELSEWHERE)
    except OSError as error:
        raise KeyTrouble(f"the key file {path} cannot be trusted: {error.strerror}") from None


def _key_in(data: bytes, where: str) -> Key:
    """The key that a text holds."""
    if len(data) > _LONGEST:
        raise KeyTrouble(f"{where} holds more than {_LONGEST} bytes, which is no key; {_ANEW}")
    text = _text_of(data, where).strip()
    for opening, closing in _QUOTES:
        if len(text) > 1 and text[0] == opening and text[-1] == closing:
            text = text[1:-1].strip()
            break
    if not text:
        raise KeyTrouble(f"{where} is empty; {_ANEW}")
    if len(text.splitlines()) > 1:
        raise KeyTrouble(f"{where} holds several lines, and a key is one; {_ANEW}")
    if any(ord(letter) < ord(" ") and letter != "\t" for letter in text):
        raise KeyTrouble(f"{where} holds binary data, and a key is text; {_ANEW}")
    return _long_enough(text.encode(), where)


def _text_of(data: bytes, where: str) -> str:
    encoding = next((encoding for mark, encoding in _ENCODINGS if data.startswith(mark)), None)
    if encoding is None and b"\0" in data:
        text = not any(data[::2]) or not any(data[1::2])  # each other byte of a Latin letter is zero
        kind_of = "is UTF-16 without a byte order mark" if text else "holds binary data"
        raise KeyTrouble(f"{where} {kind_of}, and a key is plain text (UTF-8); {_ANEW}")
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError:
        what = f"begins as {encoding.upper()[:6]} and goes on otherwise" if encoding else "holds binary data"
        raise KeyTrouble(f"{where} {what}, and a key is plain text (UTF-8); {_ANEW}") from None


def _long_enough(key: bytes, where: str) -> Key:
    if not isinstance(key, bytes):
        raise KeyTrouble(f"{where} must be bytes, not {type(key).__name__}")
    if len(key) < SHORTEST:
        raise KeyTrouble(f"{where} holds a key of {len(key)} bytes; it must be at least {SHORTEST} bytes long")
    return Key(key)


# -- making it


def make_key(path: Path, *, replace: bool = False) -> None:
    """Write a new random key, so that nobody ever sees half of one, or one that is not its owner's alone.

    A key that is there already, since another master has just made it for instance, is kept unless ``replace``.
    Raises `KeyTrouble` if it cannot be written; then all is as it was.
    """
    try:
        path = type(path)(os.path.realpath(path)) if replace else path  # a link to it stays
        make_folder(str(path.parent))
        check_folder(str(path.parent), _ELSEWHERE)
        _put(path, bytes(new_key()) + b"\n", replace)
    except OSError as error:
        raise KeyTrouble(f"the key file {path} cannot be made: {error.strerror}; {_BY_OTHER_WAYS}") from None


def _put(path: Path, data: bytes, replace: bool) -> None:
    import secrets

    draft = str(path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}"))
    try:
        write_new(draft, data)
        if replace:
            os.replace(draft, path)
            return
        try:
            os.link(draft, path)  # unlike rename, link never replaces the key that another master just made
        except FileExistsError:
            pass
        except OSError:  # a file system without hard links
            os.replace(draft, path)
    finally:
        try:
            os.unlink(draft)
        except FileNotFoundError:
            pass
