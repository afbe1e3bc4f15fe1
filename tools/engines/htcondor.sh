# HTCondor of Debian sid (bookworm has none): a pool of one submitting and one executing machine, which share no disk, only
# the loopback of this machine.  The executing one sees nothing of this system but a Debian sid of its own; its jobs run as
# nobody.  The submitting one sees all of this system, with sid's /usr and /etc: HTCondor takes no jobs of root, so it runs
# in a user namespace in which root is an ordinary user, and tests may submit as root.

PORT=19618 SUITE=sid MIRROR=${MIRROR:-http://deb.debian.org/debian}
TOP=$ENGINES_DIR/htcondor-root # sid; it is kept when the engine goes down: making it takes a minute
CLIENTS="submit q rm wait hold release vacate_job history status config_val"

install() {
    have debootstrap unshare nsenter || packages debootstrap util-linux
    unshare --mount --user --map-user=1000 --map-group=1000 true 2>/dev/null ||
        impossible "user and mount namespaces cannot be made (a container without that right?)"
    [ ! -e "$TOP/made" ] || return 0
    log "making $SUITE in $TOP"
    [ ! -e "$TOP" ] || rm -rf --one-file-system "$TOP"
    debootstrap --variant=minbase "$SUITE" "$TOP" "$MIRROR" >"$ENGINES_DIR/debootstrap.log" 2>&1 9>&- ||
        { tail -n 5 "$ENGINES_DIR/debootstrap.log" >&2 && impossible "debootstrap cannot make it"; }
    cp /etc/resolv.conf "$TOP/etc/"
    printf '#!/bin/sh\nexit 101\n' >"$TOP/usr/sbin/policy-rc.d"
    chmod 755 "$TOP/usr/sbin/policy-rc.d"
    # shellcheck disable=SC2016 # the inner shell's
    unshare --mount sh -c 'mount -t proc proc "$1/proc" &&
        exec chroot "$1" apt-get install -q -y --no-install-recommends condor python3' sh "$TOP" \
        >>"$ENGINES_DIR/debootstrap.log" 2>&1 9>&- ||
        { tail -n 5 "$ENGINES_DIR/debootstrap.log" >&2 && impossible "apt-get cannot install it"; }
    chroot "$TOP" useradd -u 1000 -m "$TEST_USER" 2>/dev/null || :
    touch "$TOP/made"
}

ready() { [ -e "$D/bin/condor_status" ] && "$D/bin/condor_status" -af Name | grep -q .; }

stop() {
    local pids
    pids=$(with_variable "CONDOR_CONFIG=$D/submit/config" && with_variable "CONDOR_CONFIG=/pool/config")
    # shellcheck disable=SC2046,SC2086 # lists of numbers
    end $(tree $pids)
    rm -rf --one-file-system "$D"
}

configured() { # side, its folder as it sees it: write its configuration, and the lines of standard input
    mkdir -p "$D/$1"/log "$D/$1"/lock "$D/$1"/run "$D/$1"/spool "$D/$1"/execute
    cat >"$D/$1/config" <<E
LOCAL_DIR = $2
RELEASE_DIR = /usr
BIN = /usr/bin
SBIN = /usr/sbin
LIB = /usr/lib/condor
LIBEXEC = /usr/libexec/condor
SHARE = /usr/share/condor
ETC = /etc/condor
RUN = \$(LOCAL_DIR)/run
LOG = \$(LOCAL_DIR)/log
LOCK = \$(LOCAL_DIR)/lock
SPOOL = \$(LOCAL_DIR)/spool
EXECUTE = \$(LOCAL_DIR)/execute
CONDOR_HOST = 127.0.0.1
COLLECTOR_HOST = 127.0.0.1:$PORT
NETWORK_INTERFACE = 127.0.0.1
BIND_ALL_INTERFACES = False
ENABLE_IPV6 = False
use security:host_based
ALLOW_READ = 127.0.0.1
ALLOW_WRITE = 127.0.0.1
ALLOW_DAEMON = 127.0.0.1
ALLOW_NEGOTIATOR = 127.0.0.1
ALLOW_ADMINISTRATOR = 127.0.0.1
SEC_DEFAULT_AUTHENTICATION = OPTIONAL
SEC_DEFAULT_AUTHENTICATION_METHODS = FS, CLAIMTOBE
SEC_DEFAULT_ENCRYPTION = PREFERRED
SEC_DEFAULT_INTEGRITY = PREFERRED
# where no namespaces, cgroups and keyrings can be made
USE_PID_NAMESPACES = False
MOUNT_UNDER_SCRATCH =
MOUNT_PRIVATE_DEV_SHM = False
BASE_CGROUP =
DISCARD_SESSION_KEYRING_ON_STARTUP = False
E
    cat >>"$D/$1/config"
}

start() {
    local client
    test_user
    mkdir -p "$D/bin"
    configured submit "$D/submit" <<E
DAEMON_LIST = MASTER, COLLECTOR, NEGOTIATOR, SCHEDD
COLLECTOR_PORT = $PORT
SHARED_PORT_PORT = $PORT
NEGOTIATOR_INTERVAL = 1
NEGOTIATOR_CYCLE_DELAY = 1
NEGOTIATOR_MIN_INTERVAL = 1
SCHEDD_INTERVAL = 1
SCHEDD_MIN_INTERVAL = 1
MAX_JOBS_PER_SUBMISSION = 11
UID_DOMAIN = submit.test
FILESYSTEM_DOMAIN = submit.test
E
    configured execute /pool <<E
DAEMON_LIST = MASTER, STARTD
SHARED_PORT_PORT = $((PORT + 1))
NUM_CPUS = 8
MEMORY = 8000
UID_DOMAIN = execute.test
FILESYSTEM_DOMAIN = execute.test
START = TRUE
SUSPEND = FALSE
PREEMPT = FALSE
KILL = FALSE
MachineMaxVacateTime = 3
UPDATE_INTERVAL = 5
E
    mkdir -p "$TOP/pool"
    chown -R "$(chroot "$TOP" id -u condor)" "$D"/execute/*/ # its daemons are condor's, who does not own the submitting side's
    cat >"$D/side" <<'E'
# side, $D, $TOP: become that machine, and run HTCondor
set -e
mount --make-rprivate /
if [ "$1" = submit ]; then
    mount --bind "$3/usr" /usr
    mount --bind "$3/etc" /etc
    exec unshare --user --map-user=1000 --map-group=1000 \
        env -i PATH=/usr/bin:/usr/sbin CONDOR_CONFIG="$2/submit/config" condor_master -f
fi
mount -t proc proc "$3/proc"
mount --bind /dev "$3/dev"
mount -t tmpfs tmpfs "$3/tmp"
mount --bind "$2/execute" "$3/pool"
exec chroot "$3" env -i PATH=/usr/bin:/usr/sbin CONDOR_CONFIG=/pool/config condor_master -f
E
    for client in submit execute; do
        (cd / && exec setsid unshare --mount sh "$D/side" $client "$D" "$TOP") \
            </dev/null >>"$D/$client/log/said.log" 2>&1 9>&- &
    done
    for client in $CLIENTS; do
        cat >"$D/bin/condor_$client" <<E
#!/bin/sh
for process in \$(pgrep -x condor_collecto); do
    grep -qsz "^CONDOR_CONFIG=$D/submit/config" /proc/\$process/environ || continue
    exec nsenter -t \$process -m -U --preserve-credentials --wd="\$PWD" \\
        env PATH=/usr/bin:/usr/sbin CONDOR_CONFIG=$D/submit/config condor_$client "\$@"
done
echo "condor_$client: Can't find address of local schedd: HTCondor is not up" >&2
exit 1
E
        chmod 755 "$D/bin/condor_$client"
    done
}

exports() {
    echo "export PATH=$D/bin:$PATH"
    echo "export ENGINE_USER=$TEST_USER"
}
