# Son of Grid Engine on three hosts of this one machine: head (the queue master), n1 and n2 (2 slots each), which are
# network namespaces behind one switch, with host names of their own.  Parallel environment mpi, round robin over the hosts.

. "$HERE/sge.sh"
QMASTER_PORT=16446 EXECD_PORT=16447 SLOTS=2
SUBNET=10.213.79
HOSTS="head n1 n2"

eval "one_host_$(declare -f install)"
eval "one_host_$(declare -f start)"
eval "one_host_$(declare -f stop)"

install() {
    one_host_install
    have ip || packages iproute2
    ip netns add sgeprobe 2>/dev/null || impossible "network namespaces cannot be made (a container without that right?)"
    ip netns del sgeprobe
}

on() { # host, command: with that host's network and name
    local host=$1
    shift
    ip netns exec "sge$host" unshare --uts sh -c 'hostname "$1" && shift && exec "$@"' sh "$host" "$@"
}

ready() { on head env "$(client_path)" SGE_ROOT="$D/root" SGE_CELL=default SGE_QMASTER_PORT=$QMASTER_PORT \
    SGE_EXECD_PORT=$EXECD_PORT qstat -f 2>/dev/null | awk '/^all.q@n/ && NF == 5 { n++ } END { exit n != 2 }'; }
client_path() { echo "PATH=$PATH:$BIN"; }

stop() {
    local host pids
    one_host_stop
    for host in $HOSTS switch; do
        [ -e "/var/run/netns/sge$host" ] || continue
        pids=$(ip netns pids "sge$host")
        # shellcheck disable=SC2086 # a list of numbers
        end $pids
        ip netns del "sge$host"
        rm -rf "/etc/netns/sge$host"
    done
    rmdir /etc/netns 2>/dev/null || :
}

start() {
    local host i=1
    mkdir -p "$D"
    ip netns add sgeswitch
    ip -n sgeswitch link add br0 type bridge
    ip -n sgeswitch link set br0 up
    for host in $HOSTS; do
        ip netns add "sge$host"
        ip -n "sge$host" link set lo up
        ip -n sgeswitch link add "p$host" type veth peer name eth0 netns "sge$host"
        ip -n sgeswitch link set "p$host" master br0 up
        ip -n "sge$host" addr add "$SUBNET.$i/24" dev eth0
        ip -n "sge$host" link set eth0 up
        mkdir -p "/etc/netns/sge$host" # ip netns exec shows its files in /etc
        printf '127.0.0.1 localhost\n%s.1 head\n%s.2 n1\n%s.3 n2\n' $SUBNET $SUBNET $SUBNET >"/etc/netns/sge$host/hosts"
        i=$((i + 1))
    done
    # the rest as on one host, seen from head
    HERE=$HERE ENGINE=$ENGINE ENGINES_DIR=$ENGINES_DIR TEST_USER=$TEST_USER on head bash -c '
        set -euo pipefail
        . "$HERE/common.sh" && D=$ENGINES_DIR/$ENGINE && . "$HERE/sge.sh"
        QMASTER_PORT='$QMASTER_PORT' EXECD_PORT='$EXECD_PORT' SLOTS='$SLOTS'
        start'
    sed -e 's/^pe_name .*/pe_name mpi/' -e 's/^allocation_rule .*/allocation_rule $round_robin/' "$D/pe" >"$D/mpi"
    {
        on_client head qconf -Ap "$D/mpi"
        on_client head qconf -aattr queue pe_list mpi all.q
        for host in n1 n2; do
            on_client head qconf -ah $host
            # all hosts share the processes of this machine: each needs job groups of its own, since a deletion goes by them
            mkdir -p "$D/local"
            echo "gid_range $([ $host = n1 ] && echo 65200-65299 || echo 65300-65399)" >"$D/local/$host"
            on_client head qconf -Aconf "$D/local/$host"
            on $host env -i PATH="$PATH" LANG=C.UTF-8 SGE_ROOT="$D/root" SGE_CELL=default SGE_QMASTER_PORT=$QMASTER_PORT \
                SGE_EXECD_PORT=$EXECD_PORT SGE_CLUSTER_NAME=test $BIN/sge_execd </dev/null 9>&-
            on_client head qconf -aattr hostgroup hostlist $host @allhosts
        done
        on_client head qconf -dattr hostgroup hostlist head @allhosts # jobs run on n1 and n2 only
    } >>"$D/daemons.log" 2>&1 || die "the hosts cannot be made"
}

on_client() {
    local host=$1
    shift
    on "$host" env "$(client_path)" SGE_ROOT="$D/root" SGE_CELL=default SGE_QMASTER_PORT=$QMASTER_PORT \
        SGE_EXECD_PORT=$EXECD_PORT "$@"
}

exports() {
    echo "export SGE_ROOT=$D/root SGE_CELL=default SGE_CLUSTER_NAME=test"
    echo "export SGE_QMASTER_PORT=$QMASTER_PORT SGE_EXECD_PORT=$EXECD_PORT"
    echo "export ENGINE_HEAD=sgehead # ip netns exec sgehead unshare --uts sh -c 'hostname head; exec ...'"
    echo "export ENGINE_USER=$TEST_USER"
}
