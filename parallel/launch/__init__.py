"""How slaves get started.

base.py          Slave and SlaveArray: the three verbs (start, poll, stop) that a way to start slaves consists of
job.py, plan.py  what is to be run: command line, and what the slave program reads on stdin
yard.py          all that one manager launches, from a slave's number to its end
group.py         what one call of add_slave brought: started, asked how it is, stopped

local.py         LocalSlave                                 one agent for all of them
batch.py         BatchArray: job arrays
    sge.py       SGEQsubSlaveArray                          qsub
    slurm.py     SlurmSlaveArray                            sbatch
program_array.py ProgramArray: commands that last as long as their slaves
    sge_pe.py    SGEPESlaveArray                            qrsh -inherit
    srun.py      SlurmSlaves                                srun
    command.py   CommandSlaveArray                          mpirun, bsub, ...
piped.py         PipedSlave: commands that lead stdin and stdout there
    ssh.py       SSHSlave                                   ssh
    command.py   PipedCommandSlave                          docker run -i, ...

folder.py        the folder through which batch jobs get their orders and tell how they are
ship.py          the slave program as it travels
ask.py           talking to an engine by its command line        program.py    a command that runs meanwhile
arguments.py     what users' arguments are checked for
"""
