"""Everything of the master that waits: books and lock, the queues slaves reach by proxy, sockets, the timer."""
