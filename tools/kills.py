"""A job with a checkpoint whose master is killed at random, again and again until it is done: is anything lost?

    python3 tools/kills.py [--jobs 200] [--seed N]

Each job has 300 tasks, small and large results among them, and is read in one of the ways that there are.  Its master
gets SIGKILL at a random moment: while Python starts, while slaves do, in the middle, just before the end; and it is
started again.  After each kill the file is read.  It must hold every result that a loop has seen; no task whose result
it held may run in the next run; and the results of the run that comes to its end are those of a calm one, each once.
Exit code 0 means so.
"""

from __future__ import annotations

import argparse
import os
import pickle
import random
import secrets
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from parallel.checkpoint.disk import Disk  # noqa: E402 - found only after the line above
from parallel.checkpoint.results_file import ResultsFile  # noqa: E402

TASKS = 300
LARGE = 50_000  # bytes
WAYS = ("tasks", "keys", "map", "unordered", "futures", "iterable", "durable")

JOB = f"""
import functools, os, sys
import parallel

def work(x):
    with open('ran', 'a') as file:
        file.write('%d %s\\n' % (x, os.environ['KILLS_RUN']))
    for _ in range(20_000):
        pass
    return x, bytes({LARGE}) if x % 29 == 0 else b''

if __name__ == '__main__':
    way = sys.argv[1]
    with parallel.Manager.local(2, output=None) as m:
        c = m.get_context(checkpoint='fit.results', durable=way == 'durable')
        if way in ('map', 'unordered'):
            found = (c.map if way == 'map' else c.map_unordered)(work, range({TASKS}))
        elif way == 'futures':
            futures = [c.submit(work, x) for x in range({TASKS})]
            found = (future.result() for future in futures)
        elif way == 'iterable':
            c.add_tasks(functools.partial(work, x) for x in range({TASKS}))
            found = c.get_results_unordered()
        else:
            for x in range({TASKS}):
                c.add_task(work, x, **(dict(key=str(x)) if way == 'keys' else {{}}))
            found = c.get_results_unordered()
        for x, data in found:
            print(x, len(data), flush=True)
    print('done', flush=True)
"""
EXPECTED = Counter((x, LARGE if x % 29 == 0 else 0) for x in range(TASKS))


def held(path: Path, key: bytes) -> list[Any]:
    """The results that the file holds, whole."""
    if not path.exists() or not path.stat().st_size:
        return []
    disk = Disk(str(path), write=False)
    try:
        file = ResultsFile(disk, key, lambda text: None)
        payloads = [file.load(record) for record in file.records()]
        return [pickle.loads(payload[0], buffers=payload[1]) for payload in payloads if payload is not None]
    finally:
        disk.close()


def ran_in(path: Path, run: int) -> list[int]:
    """The tasks that ran in that run."""
    lines = path.read_text().split("\n")[:-1] if path.exists() else []
    return [int(x) for x, of in (line.split() for line in lines) if int(of) == run]


def job(folder: Path, way: str, chance: random.Random, python: str = sys.executable) -> int:
    """One job, until it is done; returns how often its master was killed.  Raises AssertionError."""
    folder.mkdir()
    (folder / "job.py").write_text(JOB)
    key = secrets.token_hex(32)
    known: set[int] = set()  # tasks whose results are in the file
    usual = 1.5  # seconds of a run, about
    for run in range(1000):
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "KILLS_RUN": str(run), "PARALLEL_AUTHKEY": key}
        with open(folder / "out", "w") as out, open(folder / "err", "a") as err:
            program = subprocess.Popen([python, "job.py", way], cwd=folder, env=variables, stdout=out, stderr=err)
            try:
                code = program.wait(chance.uniform(0, usual))
            except subprocess.TimeoutExpired:
                program.kill()
                code = program.wait()
        lines = (folder / "out").read_text().split("\n")
        seen = Counter((int(x), int(size)) for x, size in (line.split() for line in lines[:-1] if line != "done"))
        again = known & set(ran_in(folder / "ran", run))
        before, known = known, {x for x, _ in held(folder / "fit.results", key.encode())}
        usual *= 0.9 if len(known) > len(before) + TASKS // 10 else 1.3  # so that there are some ten runs
        assert not again, f"run {run}: tasks {sorted(again)} ran although their results were known"
        assert not seen - EXPECTED, f"run {run}: the loop saw {seen - EXPECTED}"
        assert {x for x, _ in seen} <= known, f"run {run}: {sorted({x for x, _ in seen} - known)} are not in the file"
        assert code in (0, -9), f"run {run} ended with {code}: {(folder / 'err').read_text()}"
        if code == 0:
            assert seen == EXPECTED, f"run {run}: {EXPECTED - seen} are missing"
            assert "done" in lines
            return run
    raise AssertionError("it does not come to its end")


def main() -> int:
    """Run jobs, and say what came of them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--jobs", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int.from_bytes(os.urandom(4), "little"))
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    kills = Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(options.jobs):
            way = WAYS[number % len(WAYS)]
            chance = random.Random(f"{options.seed} {number}")
            kills[way] += job(Path(folder) / str(number), way, chance)
            print(f"job {number}: {way}, {kills[way]} kills so far", flush=True)
    print(f"{options.jobs} jobs, their masters killed {sum(kills.values())} times: nothing was lost or ran again")
    return 0


if __name__ == "__main__":
    sys.exit(main())
