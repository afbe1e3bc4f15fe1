"""Simulated years: the master's and the slaves' real decisions against each other, under one clock and one seed.

    plan.py      what is to happen in one run: slaves, tasks, faults; made from a seed, and all that a story needs
    world.py     the clock, and what is to happen next
    network.py   connections that delay, break, go silent, deliver late
    master.py    what the dispatcher does, around the real scheduler
    runner.py    a runner's process, around the real `RunnerSession`
    agent.py     an agent's process, around the real `AgentSession` and `SlaveState`
    machines.py  where agents run, who starts them and says that they ended
    users.py     the user's threads: contexts, tasks, readers
    faults.py    what goes wrong
    ledger.py    the simulation's own books: who holds what, who is to blame, what came of each task
    run.py       one run from its plan to its end, and whether all was as it should be
    shrink.py    the shortest story in which a fault still shows
    exhaustive.py    all orders in which a small plan may happen
    planted_bugs.py  that all this finds bugs
    makespan.py      how long a mix of tasks takes, against the ideal

Nothing here waits for real time, and nothing depends on the Python or the machine: a seed always tells the same story.
"""
