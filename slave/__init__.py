"""What runs on the machines that do the work: an agent and its runners.

``python3 -m slave HOST:PORT`` starts the *agent* (agent.py), one per machine.  It starts *runners* (runner.py), each a
process of its own with its own connection to the master: a runner fetches a lease of tasks, runs them one at a time
and posts each outcome at once, or those of short tasks together.  The agent runs no user code; it renews its runners'
leases, tells the master how a runner ended, and starts a new one.

    __main__.py       what is run (cli.py, options.py)   protocol.py       every message, once: both ends import it
    by_hand.py        a slave that a person starts       token.py          a master, and a secret, in one word
    look_around.py    masters of the local network       discovery.py      how they are asked, by UDP
    find_master.py    looking for a master               session.py        what there is to say, decided (pure)
    agent.py          the agent's loop                   handshake.py      who holds the key (pure)
    supervisor.py     its slaves' commands and ends      master_link.py    the agent's connections to its master
    agent_config.py   what it is told at its start       output_reports.py what the master is told of output
    signals.py        what wakes it                      wire.py           frames and messages on a socket
    runner_pool.py    the agent's slaves and runners     dial.py           all addresses of the master, side by side
    runner.py         the runner's loop                  link.py           a connection, and the proxies over it
    conversation.py   what it says, and says again       brief.py          the same in few bytes
    contexts.py       setup results, by context id       shared_status.py  the memory that agent and runner share
    environment.py    the master's surroundings here     outcome.py        a value or a failure, as data
    main_module.py    the master's __main__ here         pickling.py       why not, and what a pickle refers to
    search_path.py    the master's sys.path here         stretch.py        tasks of one context, in a tight loop
    keys.py           where the key is found             errors.py         every way this fails, with its exit code
    introduction.py   the handshake on a socket          transport.py      a stream of bytes
    tls.py sealed.py  the same, with TLS or only MACs    records.py        what these two have in common
    gathering.py      outcomes that travel together, and do not wait for a task that runs on (cpu_clock.py)
    certificate.py    a throw-away certificate           private_files.py  files that nobody else has a hand in
    machine.py        what differs from system to system
    mp_adapter.py     multiprocessing's private parts    slave_state.py    when its runner is ended, and why (pure)
    streams.py        standard streams that hold nobody  forks.py          what a task forked, and came back
    guard.py          what ends it all if it is killed   process_tree.py   what tasks have started
    cpus.py           how many processors, threads       pipe_agent.py     a slave program that came over a pipe
    template.py       imports once for all runners       preload.py        what: found without running anything (pure)
    name_service.py   the addresses of a host            inside.py         whether this process runs tasks
    fork_safety.py    whether that survives a fork       next_master.py    the next run of a program that was killed
    packed.py         all of these in slave.pyz

This package needs the standard library only and imports nothing of ``parallel``, so that it can travel alone.
"""
