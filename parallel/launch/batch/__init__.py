"""Slaves that a batch system starts.

engine.py   Engine: what differs between batch systems, as pure functions; Piece, TaskState
array.py    BatchArray: a job array, submitted, watched and deleted by what an Engine says
sge.py      SGEQsubSlaveArray       sge_pe.py   SGEPESlaveArray: in the parallel job in which the master runs
htcondor.py HTCondorSlaveArray      htcondor_folder.py event_log.py: what HTCondor carries to the machines, and tells
slurm.py    SlurmSlaveArray         srun.py     SlurmSlaves: in the allocation in which the master runs
"""
