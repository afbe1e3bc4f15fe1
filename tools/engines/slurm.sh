# Slurm: nodes n1 and n2 of 4 CPUs each on this one machine, on loopback, with a munge of its own.  Partition "test".

CONTROL_PORT=16817 NODE_PORT=16820

install() { have slurmctld slurmd sbatch srun munged munge || packages slurmctld slurmd slurm-client munge; }

ready() { # without its configuration, sinfo looks for another one in the network, for a minute
    [ -e "$D/slurm.conf" ] || return 1
    SLURM_CONF=$D/slurm.conf sinfo -h -N -p test -o %T 2>/dev/null | grep -cE '^(idle|mixed|allocated)$' | grep -qx 2
}

stop() {
    local pids munge
    pids=$(with_variable "SLURM_CONF=$D/slurm.conf" && written "$D"/run/*.pid | with_name slurmctld slurmd)
    munge=$(cat "$D/munge/munged.pid" 2>/dev/null || :)
    grep -qs "$D/munge/" "/proc/${munge:-none}/cmdline" || munge=
    # daemons, jobs, and whatever has left its job's process tree but still has its environment
    # shellcheck disable=SC2046,SC2086 # lists of numbers
    end $(tree $pids) $munge
    rm -rf "$D"
}

start() {
    local node host
    host=$(hostname)
    test_user
    mkdir -p "$D"/run "$D"/log "$D"/state "$D"/spool "$D"/munge
    chmod 711 "$D/munge"
    dd if=/dev/urandom of="$D/munge/munge.key" bs=128 count=1 status=none
    chmod 400 "$D/munge/munge.key"
    chown -R munge:munge "$D/munge"
    chown slurm:slurm "$D/state" "$D/log" "$D/run"
    cat >"$D/slurm.conf" <<E
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=slurm
AuthType=auth/munge
AuthInfo=socket=$D/munge/munge.socket
CryptoType=crypto/munge
SlurmctldPort=$CONTROL_PORT
SlurmctldPidFile=$D/run/slurmctld.pid
SlurmctldLogFile=$D/log/slurmctld.log
StateSaveLocation=$D/state
SlurmdPidFile=$D/run/slurmd-%n.pid
SlurmdLogFile=$D/log/slurmd-%n.log
SlurmdSpoolDir=$D/spool/%n
SlurmdParameters=config_overrides
SwitchType=switch/none
MpiDefault=none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
ReturnToService=2
KillWait=2
MinJobAge=300
MaxArraySize=11
NodeName=n1 NodeHostname=$host NodeAddr=127.0.0.1 Port=$NODE_PORT CPUs=4
NodeName=n2 NodeHostname=$host NodeAddr=127.0.0.1 Port=$((NODE_PORT + 1)) CPUs=4
PartitionName=test Nodes=ALL Default=YES MaxTime=INFINITE PriorityTier=1
PartitionName=urgent Nodes=ALL MaxTime=INFINITE PriorityTier=10
E
    runuser -u munge -- /usr/sbin/munged --force --key-file="$D/munge/munge.key" --socket="$D/munge/munge.socket" \
        --pid-file="$D/munge/munged.pid" --log-file="$D/munge/munged.log" --seed-file="$D/munge/munged.seed" \
        9>&- </dev/null >>"$D/daemons.log" 2>&1 || die munged
    wait_for 10 munged munge -S "$D/munge/munge.socket" -n
    daemon SLURM_CONF="$D/slurm.conf" slurmctld
    for node in n1 n2; do
        mkdir -p "$D/spool/$node"
        daemon SLURM_CONF="$D/slurm.conf" slurmd -N "$node"
    done
}

exports() {
    echo "export SLURM_CONF=$D/slurm.conf"
    echo "export ENGINE_USER=$TEST_USER"
}
