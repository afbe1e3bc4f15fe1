"""Everything of the master that waits: the books and their lock, the queues slaves reach by proxy, sockets, the timer."""
