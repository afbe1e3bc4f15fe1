"""Everything of the master that waits: the thread that calls the scheduler, sockets, users' threads, subscribers.

dispatcher.py      the one thread that calls the scheduler, carries out its effects, hands on its events
ticket.py          how other threads wait for it       side_threads.py   work that may block, for it
server.py peer.py  the connections of slaves, served by that thread
task_queue.py result_queue.py agent_service.py   what slaves reach by proxy
acceptor.py        the handshakes of all strangers, in a thread of its own
endpoint.py        where the master listens           addresses.py      by which addresses it is found
identity.py        what tells this master from others, and how its connections are protected
mailbox.py         outcomes on their way to the user's threads
launch_service.py  the four calls of the launchers
lock_free.py       what several threads, and signal handlers, may do at once
timer.py           when the expiry timer is due       publisher.py      events -> log and subscribers
messages.py        events -> lines of text
"""
