"""Tests of CPython's and joblib's that cannot apply here, each with the reason."""

from __future__ import annotations

_ON_DEMAND = "it counts processes that are started one by one on demand; here all slaves are started by the first call"
_SEMAPHORE = "its calls wait for a semaphore that only children of this process can have; slaves are none"
_LIVES = "it expects the process to be lost; here it lives on, and the future raises what rebuilding the call raised"

FUTURES: dict[str, str] = {
    "ExecutorTest.test_killed_child": "it expects one lost process to break the executor; here the call is tried again",
    "ExecutorTest.test_idle_process_reuse_one": _ON_DEMAND,
    "ExecutorTest.test_idle_process_reuse_multiple": _ON_DEMAND,
    "ExecutorTest.test_saturation": _SEMAPHORE,
    "ExecutorTest.test_max_workers_too_large": "it is about a limit of Windows' API, which is not used here",
    "ExecutorTest.test_python_finalization_error": "it replaces how threads are started, to make the second one of the "
    "standard executor fail; there are other threads here, and the RuntimeError reaches the caller",
    "ShutdownTest.test_processes_terminate": _SEMAPHORE,
    "DeadlockTest.test_error_at_task_unpickle": _LIVES,
    "DeadlockTest.test_exit_at_task_unpickle": _LIVES,
}

POOLS: dict[str, str] = {
    "PoolNotLeakOnFailureTest.test_release_unused_processes": "it replaces how multiprocessing makes processes, so "
    "that one fails; slaves are started in other ways",
}

_ALL_SLAVES = "without n_jobs joblib's own backends do one call after the other; here all slaves are used"
_IN_TURN = "it expects threads for Parallel inside a task; here such calls run one after the other"
_NO_MAPS = "it expects large arrays as files that are mapped into memory; here they are sent"
_WORKS = "it expects loky's error or warning about something that works here"

JOBLIB = {  # all of a test's variants, or the one in brackets
    "test_effective_n_jobs_None": _ALL_SLAVES,
    "test_nested_backend_in_sequential": _ALL_SLAVES,
    "test_nested_parallel_warnings[threading-loky-True]": _WORKS,
    "test_parallel_pickling": "it expects loky's words; ours say which part of the task it is",
    "test_error_capture": "it looks at private attributes; see test_joblib.py for the same",
    "test_parallel_with_interactively_defined_bound_method_loky": "it looks for loky's name in the log",
    "test_nested_backend_context_manager": _IN_TURN,
    "test_nested_parallelism_limit": _IN_TURN,
    "test_auto_memmap_on_arrays_from_generator": _NO_MAPS,
    "test_memmapping_leaks": _NO_MAPS,
    "test_multiple_generator_call_separated_gc": _WORKS,
    "test_parallel_thread_limit": "it needs a module that joblib compiles for its own tests",
}
