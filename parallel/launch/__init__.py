"""How slaves get started.

base.py           Slave and SlaveArray: the three verbs (start, poll, stop) that a way to start slaves consists of
job.py, config.py what is to be run: command line, and what the slave program reads on stdin
slave_service.py  all that is seen here of the rest of the master: four calls
launcher.py       all that one manager launches, from a slave's number to its end
group.py          what one call of add_slave brought: started, asked how it is, stopped, in a thread of its own
    unit.py       one slave program of it               calls.py   its launcher, as the group calls it
    connecting.py what they do until they are connected

local.py          LocalSlave                                 one agent for all of them
batch/            SGEQsubSlaveArray, SlurmSlaveArray         job arrays: qsub, sbatch
                  SGEPESlaveArray, SlurmSlaves               in the job that the master runs in: qrsh -inherit, srun
program_array.py  ProgramArray: commands that last as long as their slaves
    command.py    CommandSlaveArray                          mpirun, bsub, ...
piped_program.py  PipedProgram: one run of such a command
pipe.py           PipedSlave: commands that lead stdin and stdout there
    ssh.py        SSHSlave                                   ssh
    command.py    PipedCommandSlave                          docker run -i, ...

staging.py        the folder through which batch jobs get their orders and tell how they are; the clean-up watchdog
bootstrap.py      how the slave program gets to machines that have nothing of it
run_command.py    running an engine's commands               process.py    a command that runs meanwhile
arguments.py      what users' arguments are checked for
"""
