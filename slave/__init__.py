"""What runs on the machines that do the work: an agent and its runners.

``python3 -m slave HOST:PORT`` starts the *agent* (agent.py), one per machine.  It starts *runners* (runner.py), each a
process of its own with its own connection to the master: a runner fetches a lease of tasks, runs them one at a time
and posts each outcome at once.  The agent runs no user code; it renews its runners' leases, tells the master how a
runner ended, and starts a new one.

    __main__.py   the command line (cli.py)        handshake.py  who holds the key (pure)
    search.py     looking for a master             wire.py       frames and messages on a socket
    agent.py      the agent's loop                 dial.py       all addresses of the master, tried side by side
    signals.py    what wakes it                    link.py       a connection to the master, and the proxies over it
    crew.py       the agent's runners              mark.py       the memory that an agent and a runner share
    runner.py     the runner's loop                contexts.py   setup results, cached by context id
    home.py       the master's sys.path, folder    outcome.py    a value or a failure, as data
                  and script, as seen from here    pickling.py   why something cannot be pickled
    keys.py       where the key is found           errors.py     every way this program fails, with its exit code
    ferry.py      a slave program that came over a pipe: ssh, docker run -i

This package needs the standard library only and imports nothing of ``parallel``, so that it can travel alone.
"""
