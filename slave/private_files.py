"""Files and folders in which nobody else has a hand: the key's, the staging folder's, output files.

What belongs to this user or to root can be trusted, if others may not write to it.  Of a path, its last folder is
looked at, and not those above: whoever may rename these has been given that right by an administrator or by this user.
Where a system knows no owners (Windows), all is ours.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from typing import IO

PRIVATE_FOLDER, PRIVATE_FILE = 0o700, 0o600

_MOST_LINKS = 40  # as many as Linux follows
_NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_BINARY", 0)


class Unsafe(OSError):
    """Somebody else has, or may have, a hand in a file or folder; the message says who and what to do.

    Not raised where the system itself refuses: that is any other OSError.
    """

    def __init__(self, fact: str, remedy: str = "") -> None:
        super().__init__(errno.EPERM, f"{fact}; {remedy}" if remedy else fact)

    def __str__(self) -> str:
        return str(self.strerror)


# -- who may do what


def owner(facts: os.stat_result) -> str:
    """The name of whom a file belongs to."""
    try:
        import pwd

        return pwd.getpwuid(facts.st_uid).pw_name
    except (ImportError, KeyError):
        return f"uid {facts.st_uid}"


def is_ours(facts: os.stat_result) -> bool:
    """Whether a file belongs to this user or to root."""
    return not hasattr(os, "geteuid") or facts.st_uid in (os.geteuid(), 0)


def others_may_write(facts: os.stat_result) -> bool:
    """Whether others may write to a file, or make and remove files in a folder."""
    if os.name != "posix":
        return False
    return bool(facts.st_mode & 0o002 or (facts.st_mode & 0o020 and not _is_private_group(facts.st_gid)))


def _is_private_group(gid: int) -> bool:
    """Whether a group holds this user alone: on many systems each user has such a group, and a umask of 002."""
    try:
        import grp
        import pwd

        group, user = grp.getgrgid(gid), pwd.getpwuid(os.geteuid())
    except (ImportError, KeyError):
        return False
    own = user.pw_uid != 0 and user.pw_gid == gid and user.pw_name == group.gr_name
    return own and set(group.gr_mem) <= {user.pw_name}


def kind(mode: int) -> str:
    """What a file is that is no ordinary one; '' if it is."""
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a FIFO"), (stat.S_ISSOCK, "a socket"))
    words = next((words for test, words in kinds if test(mode)), "a device")
    return "" if stat.S_ISREG(mode) else words


def check_folder(path: str, elsewhere: str, sticky: bool = False) -> None:
    """Raises `Unsafe` if others may put files into a folder; OSError if there is none.

    ``sticky``: they may, if they cannot replace what is ours (/tmp).  ``elsewhere``: what to do if it is not ours.
    """
    facts = os.stat(path)
    if not stat.S_ISDIR(facts.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), path)
    if not is_ours(facts):
        raise Unsafe(f"the folder {path} belongs to {owner(facts)}", elsewhere)
    if others_may_write(facts) and not (sticky and facts.st_mode & stat.S_ISVTX):
        chmod = facts.st_uid == os.geteuid() and not facts.st_mode & stat.S_ISVTX  # nobody is to do that to /tmp
        remedy = f"take that from them: chmod go-w {shlex.quote(path)}" if chmod else elsewhere
        raise Unsafe(f"others may write to the folder {path}", remedy)


# -- making them


def make_folder(path: str) -> None:
    """Make a folder, and those above it that are missing, for this user alone under any umask.

    One that exists is left as it is.  Raises OSError.
    """
    parent = os.path.dirname(path)
    if parent not in (path, "") and not os.path.lexists(parent):
        make_folder(parent)
    try:
        os.mkdir(path, PRIVATE_FOLDER)
    except FileExistsError:
        return
    os.chmod(path, PRIVATE_FOLDER)


def user_folder(base: str, elsewhere: str) -> str:
    """This user's folder in ``base``, made if it is missing: 'parallel', or 'parallel-UID' if others have theirs there.

    Nobody else can look into it or put another in its place.  Raises `Unsafe` if somebody could, or made it before us;
    ``elsewhere``: what to do then.  Raises OSError if it cannot be made.
    """
    make_folder(base)
    check_folder(base, elsewhere, sticky=True)
    facts = os.stat(base)
    if not hasattr(os, "geteuid") or (facts.st_uid == os.geteuid() and not others_may_write(facts)):
        path = os.path.join(base, "parallel")
    else:
        path = os.path.join(base, f"parallel-{os.geteuid()}")
    make_folder(path)
    facts = os.lstat(path)
    if hasattr(os, "geteuid") and facts.st_uid != os.geteuid():
        raise Unsafe(f"{path} belongs to {owner(facts)}, who could read and change what is put there", elsewhere)
    if not stat.S_ISDIR(facts.st_mode):
        what = "a link" if stat.S_ISLNK(facts.st_mode) else "no folder"
        raise Unsafe(f"{path} is {what}", f"remove it, or {elsewhere}")
    if facts.st_mode & 0o077:
        os.chmod(path, PRIVATE_FOLDER)  # earlier versions left that to the umask
    return path


def write_new(path: str, data: bytes, mode: int = PRIVATE_FILE) -> None:
    """Write a file that did not exist, with this mode under any umask: the whole of it, or nothing is left.

    Raises OSError, FileExistsError if there is such a file or link.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_FOLLOW | NO_WAIT, mode)
    try:
        try:
            if hasattr(os, "fchmod"):
                os.fchmod(handle, mode)
            left = memoryview(data)
            while left:
                left = left[os.write(handle, left) :]
        finally:
            os.close(handle)  # a network's file system may say only now that the disk is full
    except BaseException:
        os.unlink(path)
        raise


# -- output files


def open_output(path: str, *, truncate: bool = False, fifo: bool = False) -> int:
    """Open a slave's output file to append to it, made if it is missing; returns the descriptor.  Never waits.

    Devices and terminals will do, and a FIFO of ours if ``fifo`` says so and somebody reads it.  Raises `Unsafe` for
    any other kind of file, for a link that is not ours and for one that leads to a file which is not ours; OSError if
    the file cannot be written.  A file of another user that stands there itself, and may be written, will do.
    """
    path, linked, inherited = _follow(path) if os.name == "posix" else (path, False, False)
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | NO_WAIT | (0 if inherited else _NO_FOLLOW)
    try:
        handle = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno == errno.ENXIO and not inherited:
            raise Unsafe(_no_output(os.stat(path).st_mode)) from None
        raise
    try:
        facts = os.fstat(handle)
        allowed = stat.S_ISREG(facts.st_mode) or stat.S_ISCHR(facts.st_mode) or inherited
        if not allowed and not (fifo and stat.S_ISFIFO(facts.st_mode) and is_ours(facts)):
            raise Unsafe(_no_output(facts.st_mode))
        if stat.S_ISREG(facts.st_mode) and not inherited:
            _prepare(handle, facts, linked, truncate)
        if os.name == "posix":
            os.set_blocking(handle, True)
    except BaseException:
        os.close(handle)
        raise
    return handle


def append_to(path: str, buffering: int = -1) -> IO[bytes]:
    """A slave's output file, open to append to it; raises as `open_output`."""
    return open(path, "ab", buffering, opener=lambda name, _: open_output(name))


def _prepare(handle: int, facts: os.stat_result, linked: bool, truncate: bool) -> None:
    if linked and not is_ours(facts):
        raise Unsafe(f"it is a link to a file of {owner(facts)}")
    if hasattr(os, "fchmod") and not facts.st_size and facts.st_mode & 0o600 != 0o600:
        os.fchmod(handle, stat.S_IMODE(facts.st_mode) | 0o600)  # whatever the umask: the slave opens it again
    if truncate:
        os.ftruncate(handle, 0)


def _no_output(mode: int) -> str:
    return f"it is {kind(mode)}" + (" that nobody reads, or a batch job could not reach" if stat.S_ISFIFO(mode) else "")


def _follow(path: str) -> tuple[str, bool, bool]:
    """Where the links at the end of a path lead, whether there are any, and whether to a descriptor of this process.

    Raises `Unsafe` for a link that belongs neither to this user nor to root.
    """
    linked = False
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(path))
        path = os.path.join(folder, os.path.basename(path))
        if path.startswith("/proc/"):
            return path, True, True  # /dev/stderr
        try:
            facts = os.lstat(path)
        except FileNotFoundError:
            return path, linked, False
        if not stat.S_ISLNK(facts.st_mode):
            return path, linked, False
        if not is_ours(facts):
            raise Unsafe(f"it is a link of {owner(facts)}")
        linked, path = True, os.path.join(folder, os.readlink(path))
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path)
