"""What launching leaves in files and in environments, and what another user may do about it."""

from __future__ import annotations

import ast
import functools
import os
import pty
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

import parallel
from parallel.launch.config import LaunchConfig
from parallel.launch.job import Job
from parallel.launch.process import CommandProcess
from parallel.launch.run_command import run_command
from parallel.launch.slave_file import slave_file
from parallel.launch.staging import StagingFolder, job_script
from slave.keys import VARIABLE
from slave.private_files import Unsafe, append_to, make_folder, open_output, others_may_write, user_folder, write_new
from tests.conftest import Make
from tests.support.programs import ROOT
from tests.support.users import OTHER, as_user, folder_of, needs_root, shared_folder
from tests.support.waiting import eventually

JOB = Job(("true",), b"", (0,), None, orders={"slots": [], "key": "the secret"})
SECRET = "the key, which nobody else is to see"


def mode(path: str | Path) -> str:
    return oct(stat.S_IMODE(os.lstat(path).st_mode))


def own(path: Path, link: bool = False) -> Path:
    """Give it to the other user."""
    os.chown(path, OTHER, OTHER, follow_symlinks=not link)
    return path


# -- this user's folder


def test_in_a_folder_of_ones_own_it_is_named_parallel(tmp_path: Path) -> None:
    assert user_folder(str(tmp_path / "home" / ".cache"), "") == str(tmp_path / "home" / ".cache" / "parallel")
    assert mode(tmp_path / "home" / ".cache") == mode(tmp_path / "home" / ".cache" / "parallel") == "0o700"


def test_one_that_an_earlier_version_made_is_closed_to_others(tmp_path: Path) -> None:
    (tmp_path / "parallel").mkdir()
    (tmp_path / "parallel").chmod(0o775)
    user_folder(str(tmp_path), "")
    assert mode(tmp_path / "parallel") == "0o700"


@needs_root
@pytest.mark.parametrize("mask", [0o777, 0o000, 0o027])
def test_in_a_folder_of_many_users_each_has_one_under_any_umask(mask: int) -> None:
    def make() -> str:
        os.umask(mask)
        folder = user_folder(str(base), "")
        make_folder(os.path.join(folder, "a", "b"))
        write_new(os.path.join(folder, "a", "b", "c"), b"text")
        with open(os.path.join(folder, "a", "b", "c"), "rb") as file:
            assert file.read() == b"text"
        return f"{folder} {mode(folder)} {mode(folder + '/a')} {mode(folder + '/a/b/c')}"

    with shared_folder() as base:
        for uid in (OTHER, OTHER + 1):
            assert as_user(uid, make) == f"{base}/parallel-{uid} 0o700 0o700 0o600"
        assert user_folder(str(base), "") == f"{base}/parallel-0"


@needs_root
@pytest.mark.parametrize("what", ["folder", "file", "link", "link to ours"])
def test_what_another_user_made_first_is_refused(tmp_path: Path, what: str) -> None:
    with shared_folder() as base:
        name = base / "parallel-0"
        if what == "folder":
            folder_of(OTHER, name, 0o777)
        elif what == "file":
            name.touch()
            own(name)
        else:
            name.symlink_to(tmp_path if what == "link to ours" else base)
            own(name, link=True)
        with pytest.raises(Unsafe, match=f"^{name} belongs to uid {OTHER}, who could read and change .*; do this$"):
            user_folder(str(base), "do this")


def test_a_link_or_a_file_of_our_own_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "parallel").symlink_to("elsewhere")
    with pytest.raises(Unsafe, match=f"^{tmp_path}/parallel is a link; remove it, or do this$"):
        user_folder(str(tmp_path), "do this")
    (tmp_path / "parallel").unlink()
    (tmp_path / "parallel").touch()
    with pytest.raises(Unsafe, match=f"^{tmp_path}/parallel is no folder; remove it, or do this$"):
        user_folder(str(tmp_path), "do this")


@needs_root
def test_a_folder_in_which_others_could_replace_ours_is_refused() -> None:
    with shared_folder(0o777) as base:
        with pytest.raises(Unsafe, match=f"^others may write to the folder {base}; .*: chmod go-w {base}$"):
            user_folder(str(base), "do this")
        assert as_user(OTHER, lambda: user_folder(str(base), "do this")).endswith(f"to the folder {base}; do this")
        own(base).chmod(0o1777)
        with pytest.raises(Unsafe, match=f"^the folder {base} belongs to uid {OTHER}; do this$"):
            user_folder(str(base), "do this")
        assert not list(base.iterdir())


def test_a_cache_folder_that_is_a_link_will_do(tmp_path: Path) -> None:
    (tmp_path / "scratch").mkdir()
    (tmp_path / "home" / ".cache").symlink_to(tmp_path / "scratch")
    assert user_folder(str(tmp_path / "home" / ".cache"), "") == str(tmp_path / "home" / ".cache" / "parallel")


@pytest.mark.parametrize(
    ("members", "name", "refused"),
    [([], "me", False), (["me"], "me", False), (["me", "you"], "me", True), ([], "lab", True)],
)
def test_a_group_that_holds_this_user_alone_is_no_others(
    monkeypatch: pytest.MonkeyPatch, members: list[str], name: str, refused: bool
) -> None:
    monkeypatch.setattr("pwd.getpwuid", lambda uid: SimpleNamespace(pw_uid=77, pw_gid=88, pw_name="me"))
    monkeypatch.setattr("grp.getgrgid", lambda gid: SimpleNamespace(gr_name=name, gr_mem=members))
    facts = SimpleNamespace(st_mode=0o40775, st_gid=88)
    assert others_may_write(facts) is refused  # type: ignore[arg-type]
    assert others_may_write(SimpleNamespace(st_mode=0o40775, st_gid=89))  # type: ignore[arg-type]
    assert others_may_write(SimpleNamespace(st_mode=0o40777, st_gid=88))  # type: ignore[arg-type]


# -- new files


@pytest.mark.parametrize("what", ["file", "link", "dangling link", "fifo"])
def test_a_new_file_goes_into_nothing_that_is_there(tmp_path: Path, what: str) -> None:
    victim, name = tmp_path / "victim", tmp_path / "name"
    if what == "file":
        name.write_text("before")
    elif what == "fifo":
        os.mkfifo(name)
    else:
        name.symlink_to(victim)
        if what == "link":
            victim.write_text("before")
    with pytest.raises(FileExistsError):
        write_new(str(name), b"text")
    assert not victim.exists() or victim.read_text() == "before"
    assert what != "file" or name.read_text() == "before"


# -- the staging folder


@pytest.fixture
def staging() -> Iterator[StagingFolder]:
    made = StagingFolder()
    yield made
    made.remove()


def test_all_of_it_is_for_this_user_alone(staging: StagingFolder, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        folder = Path(staging.array([JOB], "index=0").path)
    finally:
        os.umask(before)
    cache = tmp_path / "home" / ".cache"
    assert folder.parent.parent == cache / "parallel"
    found = {path.name: mode(path) for path in [cache, *cache.rglob("*")]}
    assert {name: found.pop(name) for name in ("0.orders", "0.output", "slave.pyz")} == dict.fromkeys(
        ("0.orders", "0.output", "slave.pyz"), "0o600"
    )
    assert set(found.values()) == {"0o700"}


@needs_root
@pytest.mark.parametrize("mask", [0o777, 0o000])
def test_its_script_works_under_any_umask_and_tells_how_it_ended(monkeypatch: pytest.MonkeyPatch, mask: int) -> None:
    def run() -> str:
        os.umask(mask)
        staging = StagingFolder()
        try:
            array = staging.array([JOB._replace(python="sh -c 'cat; exit 3' #")], "index=$1")
            done = subprocess.run(["/bin/sh", array.script, "0"], capture_output=True, text=True, check=False)
            array.look()
            end = str(array.end(0)).replace(str(array.host(0)), "here")
            return f"{done.returncode} {array.host(0) is not None} {done.stderr}{done.stdout}{end}"
        finally:
            staging.remove()

    slave_file()  # it is made once; the other user may read neither this checkout nor what Python imports for that
    with shared_folder() as base:
        monkeypatch.setenv("XDG_CACHE_HOME", str(base))
        said = as_user(OTHER, run)
        end = "it exited with code 3 on here: its key is not the master's; its last words:\n    | "
        assert said == f'3 True {end}{{"slots": [], "key": "the secret"}}'
        assert mode(base / f"parallel-{OTHER}") == "0o700" and not list((base / f"parallel-{OTHER}").iterdir())


@needs_root
def test_a_staging_folder_that_another_user_made_first_is_an_input_error(
    staging: StagingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a cache folder that many users share; and once it is gone, all is well."""
    with shared_folder() as base:
        monkeypatch.setenv("XDG_CACHE_HOME", str(base))
        folder_of(OTHER, base / "parallel", 0o777)  # of an earlier version's name
        planted = folder_of(OTHER, base / "parallel-0", 0o777)
        with pytest.raises(
            parallel.InputError,
            match=f"^the folder for the slaves' orders, the key among them, is not safe: {planted} belongs to uid "
            f"{OTHER}, .*; set XDG_CACHE_HOME to a folder of your own that this machine and the slaves' machines share",
        ):
            staging.array([JOB], "index=0")
        assert not list(planted.iterdir())
        planted.rmdir()
        assert staging.array([JOB], "index=0").path.startswith(f"{base}/parallel-0/")
        assert not list((base / "parallel").iterdir())
        staging.remove()


@needs_root
def test_a_user_without_a_home_needs_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME")
    said = as_user(OTHER, lambda: StagingFolder().array([JOB], "index=0"))
    assert said.startswith(f"InputError: this user, uid {OTHER}, has no home folder for the slaves' orders; set XDG_")


def test_a_cache_folder_is_found_from_everywhere(staging: StagingFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "here")
    assert os.path.isabs(staging.array([JOB], "index=0").path)


def test_an_interrupted_start_can_be_repeated(staging: StagingFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr("subprocess.Popen", interrupt)
        with pytest.raises(KeyboardInterrupt):
            staging.array([JOB], "index=0")
    assert Path(staging.array([JOB], "index=0").script).exists()


def test_what_is_made_anew_after_the_end_is_cleared_away(staging: StagingFolder) -> None:
    """HTCondor's shadow makes the folder of its event log where it is gone, and a busy one does so late."""
    folder = Path(staging.array([JOB], "index=0").path)
    staging.written_late = True
    staging.remove()

    def write() -> bool:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            return (folder / "events").write_text("late") > 0
        except FileNotFoundError:  # cleared away in between
            return False

    eventually(write)
    eventually(lambda: not folder.parent.exists())


def test_what_cannot_be_removed_at_once_is_cleared_away(
    staging: StagingFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody made a file in it while it was being removed, say."""
    folder = Path(staging.array([JOB], "index=0").path)
    with monkeypatch.context() as broken:
        broken.setattr("shutil.rmtree", lambda path, ignore_errors: None)
        staging.remove()
    eventually(lambda: not folder.parent.exists())


def run_script(folder: Path, output: Path) -> str:
    """What a job's script writes elsewhere that should write 'some words' to ``output``."""
    folder.mkdir(exist_ok=True)
    (folder / "0.orders").write_text("orders")
    (folder / "0.output").write_text(str(output))
    script = job_script(str(folder), "echo some words", "index=0")
    done = subprocess.run(["/bin/sh", "-c", script], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == done.stderr == ""
    if not (folder / "0.elsewhere").exists():
        return ""
    elsewhere = Path((folder / "0.elsewhere").read_text().strip().partition(":")[2])
    (folder / "0.elsewhere").unlink()
    assert mode(elsewhere) == "0o600"
    text = elsewhere.read_text()
    elsewhere.unlink()
    return text


def test_a_jobs_script_writes_to_the_output_file_also_by_our_links(tmp_path: Path) -> None:
    for name in ("a file", "a new file", "a link", "a dangling link"):
        (tmp_path / name).symlink_to(tmp_path / f"{name}'s") if "link" in name else None
        (tmp_path / f"{name}'s" if name == "a link" else tmp_path / "a file").touch()
        assert run_script(tmp_path / "folder", tmp_path / name) == ""
        assert (tmp_path / name).read_text() == "some words\n"


def test_a_jobs_script_does_not_hang_at_a_fifo(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    for name in ("fifo", "link", "folder"):
        told, words = run_script(tmp_path / "folder", tmp_path / name).splitlines()
        assert told.startswith(f"slave: {tmp_path / name} cannot be written on ") and words == "some words"


@needs_root
def test_a_jobs_script_does_not_follow_links_of_others(tmp_path: Path) -> None:
    victim, theirs = tmp_path / "victim", own_file(tmp_path / "theirs")
    victim.touch()
    (tmp_path / "their link").symlink_to(victim)
    own(tmp_path / "their link", link=True)
    (tmp_path / "our link").symlink_to(theirs)
    for name in ("their link", "our link"):
        told, words = run_script(tmp_path / "folder", tmp_path / name).splitlines()
        assert told.startswith(f"slave: {tmp_path / name} cannot be written on ") and words == "some words"
    assert victim.read_text() == theirs.read_text() == ""


# -- output files


def own_file(path: Path) -> Path:
    path.touch()
    path.chmod(0o666)
    return own(path)


def config(output: str | Path) -> LaunchConfig:
    return LaunchConfig(None, "/", b"", str(output), lambda local: [])


def write(path: str | Path, text: bytes = b"more", fifo: bool = False) -> None:
    handle = open_output(str(path), fifo=fifo)
    try:
        assert os.get_blocking(handle) and not os.get_inheritable(handle)
        os.write(handle, text)
    finally:
        os.close(handle)


def test_it_is_made_emptied_and_appended_to(tmp_path: Path) -> None:
    path = tmp_path / "output"
    write(path)
    with append_to(str(path)) as file:
        file.write(b" and more")
    assert path.read_bytes() == b"more and more"
    config(path).make_output(0)
    assert path.read_bytes() == b""


def test_links_of_our_own_are_followed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "a").symlink_to("folder/b")
    (tmp_path / "folder" / "b").symlink_to("../c")
    write(tmp_path / "a")
    assert (tmp_path / "c").read_bytes() == b"more"
    config(tmp_path / "a").make_output(0)
    assert (tmp_path / "c").read_bytes() == b"" and (tmp_path / "a").is_symlink()
    (tmp_path / "c").unlink()
    (tmp_path / "c").symlink_to("a")
    with pytest.raises(parallel.InputError, match="cannot be written: Too many levels of symbolic links; name another"):
        config(tmp_path / "a").make_output(0)


@needs_root
@pytest.mark.parametrize("what", ["theirs to ours", "theirs to nothing", "ours to theirs", "ours to their link"])
def test_links_that_others_have_a_hand_in_are_refused(tmp_path: Path, what: str) -> None:
    victim, theirs, link = tmp_path / "victim", own_file(tmp_path / "theirs"), tmp_path / "link"
    victim.write_text("before")
    target = {"theirs to ours": "victim", "theirs to nothing": "new", "ours to theirs": "theirs"}.get(what, "next")
    link.symlink_to(target)
    (tmp_path / "next").symlink_to("victim")
    own(tmp_path / "next", link=True)
    if what.startswith("theirs"):
        own(link, link=True)
    trouble = f"it is a link to a file of uid {OTHER}" if what == "ours to theirs" else f"it is a link of uid {OTHER}"
    with pytest.raises(parallel.InputError, match=f"^the output file {link} cannot be written: {trouble}; name anoth"):
        config(link).make_output(0)
    with pytest.raises(Unsafe, match=trouble):
        write(link)
    assert victim.read_text() == "before" and theirs.read_text() == "" and not (tmp_path / "new").exists()


@needs_root
def test_a_file_of_others_that_we_may_write_is_no_link(tmp_path: Path) -> None:
    write(own_file(tmp_path / "theirs"))
    assert (tmp_path / "theirs").read_bytes() == b"more"


@pytest.mark.parametrize("by_link", [False, True])
@pytest.mark.parametrize("reader", [False, True])
def test_a_fifo_is_an_input_error_and_no_hang(tmp_path: Path, by_link: bool, reader: bool) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "link").symlink_to("fifo")
    path = tmp_path / ("link" if by_link else "fifo")
    read = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if reader else None
    try:
        with pytest.raises(parallel.InputError, match=f"{path} cannot be written: it is a FIFO .*; name another place"):
            config(path).make_output(0)
        if read is None:
            with pytest.raises(Unsafe, match="it is a FIFO"):
                write(path, fifo=True)
        else:
            write(path, fifo=True)  # that of the pipe agent, which reads it
            assert os.read(read, 10) == b"more"
            if os.geteuid() == 0:
                own(tmp_path / "fifo")
                with pytest.raises(Unsafe, match="it is a FIFO"):
                    write(path, fifo=True)
    finally:
        if read is not None:
            os.close(read)


def test_a_manager_says_at_once_that_a_fifo_will_not_do(make: Make, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "slave0.output")
    manager = make()
    with pytest.raises(parallel.InputError, match="slave0.output cannot be written: it is a FIFO"):
        manager.wait_for_slaves(1, 60)


def test_what_else_is_no_output_file(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as place:
        place.bind("socket")
    for path, trouble in ((tmp_path, "Is a directory"), (tmp_path / "socket", "it is a socket")):
        with pytest.raises(parallel.InputError, match=f"{path} cannot be written: {trouble}; name another place"):
            config(path).make_output(0)


def test_devices_and_terminals_will_do(tmp_path: Path) -> None:
    config(os.devnull).make_output(0)
    write(os.devnull)
    ours, theirs = pty.openpty()
    try:
        name = os.ttyname(theirs)
        (tmp_path / "link").symlink_to(name)
        for path in (name, tmp_path / "link"):
            config(path).make_output(0)
            write(path, b"x")
            assert os.read(ours, 10) == b"x"
    finally:
        os.close(ours)
        os.close(theirs)


@pytest.mark.parametrize("name", ["/dev/stderr", "/dev/fd/2", "/proc/self/fd/2"])
@pytest.mark.parametrize("kind", ["pipe", "file", "terminal"])
def test_ones_own_stderr_will_do_and_is_not_emptied(tmp_path: Path, name: str, kind: str) -> None:
    if not os.path.exists(name):
        pytest.skip(f"there is no {name} here")
    code = f"""
import os
from parallel.launch.config import LaunchConfig
from slave.private_files import open_output
LaunchConfig(None, "/", b"", {name!r}, lambda local: []).make_output(0)
os.write(open_output({name!r}), b"more")
"""
    log = tmp_path / "log"
    log.write_text("before, ")
    ours, theirs = pty.openpty()
    stderr = {"pipe": subprocess.PIPE, "terminal": theirs, "file": os.open(log, os.O_WRONLY | os.O_APPEND)}
    try:
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, stderr=stderr[kind], env={"PYTHONPATH": str(ROOT)}, check=False)
        said = {"pipe": done.stderr, "file": log.read_bytes()[len("before, ") :]}
        assert done.returncode == 0 and (os.read(ours, 10) if kind == "terminal" else said[kind]) == b"more"
        assert log.read_text().startswith("before, ")
    finally:
        for handle in (ours, theirs, stderr["file"]):
            os.close(handle)


@needs_root
@pytest.mark.parametrize(("mask", "expected"), [(0o777, "0o600"), (0o000, "0o666"), (0o022, "0o644")])
def test_a_slave_can_open_again_what_its_master_made(mask: int, expected: str) -> None:
    def make() -> str:
        os.umask(mask)
        config(path).make_output(0)
        write(path)
        return mode(path)

    with shared_folder() as place:
        path = folder_of(OTHER, place / "folder") / "output"
        assert as_user(OTHER, make) == expected


# -- the key is in no environment of what is started


def test_every_program_is_started_with_an_environment_of_its_own_choice() -> None:
    for path in sorted((ROOT / "parallel" / "launch").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "subprocess.Popen":
                assert "env" in {keyword.arg for keyword in node.keywords}, f"{path}:{node.lineno}"


def test_commands_and_the_watchdog_do_not_see_it(staging: StagingFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    assert SECRET not in run_command(["env"]) and "HOME=" in run_command(["env"])
    process = CommandProcess(["env"], "env.output")
    process.wait(60)
    assert process.poll() and SECRET not in Path("env.output").read_text() and "HOME=" in Path("env.output").read_text()
    staging.array([JOB], "index=0")
    assert staging._watchdog is not None
    if sys.platform == "linux":
        environment = Path(f"/proc/{staging._watchdog.pid}/environ")
        seen = eventually(
            environment.read_bytes, 60, "its environment, which cannot be read while it becomes the program"
        )
        assert b"HOME=" in seen and SECRET.encode() not in seen


def own_environment() -> tuple[str | None, bytes]:
    shown = b""
    for pid in (os.getpid(), os.getppid()):
        shown += Path(f"/proc/{pid}/environ").read_bytes() if sys.platform == "linux" else b""
    return os.environ.get(VARIABLE), shown + subprocess.run(["env"], capture_output=True, check=True).stdout


def test_tasks_of_local_slaves_do_not_see_it_and_the_script_keeps_it(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, SECRET)
    context = make().get_context()
    context.add_task(functools.partial(own_environment))
    (found,) = context.get_results_unordered()
    assert found[0] is None and b"HOME=" in found[1] and SECRET.encode() not in found[1]
    assert os.environ[VARIABLE] == SECRET
