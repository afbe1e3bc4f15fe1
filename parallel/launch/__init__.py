"""How slaves get started.

base.py    Slave and SlaveArray: the three verbs (start, poll, stop) that a way to start slaves consists of
job.py     what is to be run, as pure functions: command line, and what the slave program reads on stdin
local.py   LocalSlave
yard.py    all that one manager has launched: numbers, output files, who watches, who stops
"""
