"""Front ends: for programs that take a pool, an executor or a backend, over `Context` and its futures.

    executor.py    `parallel.Executor`, a `concurrent.futures.Executor`
    pool.py        `parallel.Pool`, with the methods of `multiprocessing.Pool`
    pool_jobs.py   what a pool has under way; pool_results.py, imap.py  what its methods return
    calls.py       how a pool's calls go to the slaves: by tags of their own, a large function once to each runner
    maps.py        `parallel.map`, `parallel.starmap`
    work.py        what all of them stand on: a context whose slaves are of a manager of its own, or of the user's;
                   it outlives its front end's object, and ends at interpreter exit
    joblib.py      joblib's backend: the one file that needs joblib
    lane.py        for callbacks that may wait, as joblib's do
    shared_arrays.py   large arrays of many calls of joblib's, sent once to each slave
    inline.py      the same inside a task: calls run in that process, one after the other
    processes.py   the slaves as the standard pools show their processes

To build another one (a pool, a backend): take a `Work` by `work.begin` and submit to it.  Each `Work.submit` gives a
`TaskFuture`; its callbacks run in the manager's courier thread, may submit more, and must not wait for other futures.
Where they are somebody else's and may wait, take a `Lane`; else no front end has a thread, but a pool while it takes
the inputs of an ``imap``.  When its object goes,
`weakref.finalize(object, work.finish_soon)` lets what was submitted be done and then ends the slaves; `finish` waits
for that; `abort` drops what is not done, at once.
"""
