"""The tests: core/ is pure, the others use real processes and sockets; support/ is what they share."""
