# What the engines' scripts have in common.  An engine's script defines the functions
#   install   get its packages         start, stop   its daemons; both may find them in any state
#   ready     whether it can be used   exports       what its clients need, as shell code

export LC_ALL=C DEBIAN_FRONTEND=noninteractive
HERE=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
ENGINES_DIR=${ENGINES_DIR:-/tmp/parallel-engines}
TEST_USER=${TEST_USER:-paralleltest} # jobs are submitted as an ordinary user: engines treat root differently
PATH=$PATH:/usr/sbin:/sbin
unset TMPDIR TMP TEMP # the caller's may not be there for a daemon, or in another root

log() { echo "engines: $ENGINE: $*" >&2; }
die() {
    log "FAILED: $*"
    [ -z "${D:-}" ] || find "$D" -name '*.log' -o -name messages 2>/dev/null | xargs -r tail -n 10 >&2 || :
    exit 1
}
impossible() {
    log "cannot be had here: $*"
    exit 3
}

load() { # the engine's name: define its functions
    ENGINE=${1:-}
    [ $# = 1 ] && [ -e "$HERE/$ENGINE.sh" ] && [ "$ENGINE" != common ] || {
        echo "usage: $0 sge|sge-hosts|slurm|htcondor|sshd|openmpi" >&2
        exit 2
    }
    D=$ENGINES_DIR/$ENGINE
    . "$HERE/$ENGINE.sh"
}

locked() { # one caller at a time
    mkdir -p "$ENGINES_DIR"
    chmod 755 "$ENGINES_DIR"
    exec 9>"$ENGINES_DIR/.$ENGINE.lock"
    flock -w 300 9 || die "another one is at it for five minutes"
}

packages() { # names of packages; their services must not be started by the installation
    local denied=/usr/sbin/policy-rc.d status=0 out=$ENGINES_DIR/apt.log
    exec 8>"$ENGINES_DIR/.packages.lock" # engines are started side by side, and share the file that denies
    flock -w 600 8 || die "another one installs packages for ten minutes"
    [ -e $denied ] && denied='' || { printf '#!/bin/sh\nexit 101\n' >$denied && chmod 755 $denied; }
    log "installing $*"
    get() { apt-get install -q -y --no-install-recommends -o DPkg::Lock::Timeout=300 "$@" >"$out" 2>&1 8>&- 9>&-; }
    get "$@" || { apt-get update -q >/dev/null 2>&1 8>&- 9>&- && get "$@"; } || status=$?
    [ -z "$denied" ] || rm -f $denied
    exec 8>&-
    [ $status = 0 ] || { tail -n 5 "$out" >&2 && impossible "apt-get cannot install it"; }
}

have() { # programs: are all of them there?
    local program
    for program in "$@"; do command -v "$program" >/dev/null || return 1; done
}

test_user() {
    id "$TEST_USER" >/dev/null 2>&1 || useradd -m -d "$ENGINES_DIR/home" -s /bin/bash "$TEST_USER"
}

daemon() { # a program: run it until it has gone to the background, with nothing of our environment or descriptors
    (cd / && exec 9>&- && exec env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 "$@") \
        </dev/null >>"$D/daemons.log" 2>&1 || die "$*"
}

wait_for() { # seconds, what, command: until the command succeeds
    local left=$(($1 * 10)) what=$2
    shift 2
    until "$@" >/dev/null 2>&1; do
        [ $((left--)) -gt 0 ] || die "$what: not there in time"
        sleep 0.1
    done
}

with_variable() { # a line NAME=value, or its beginning with *: the processes that have it in their environment
    local process pattern=$1
    for process in /proc/[0-9]*; do
        [ "${process#/proc/}" = $$ ] && continue
        while IFS= read -r -d '' line; do
            # shellcheck disable=SC2254 # the pattern is one
            case $line in $pattern) echo "${process#/proc/}" && break ;; esac
        done 2>/dev/null <"$process/environ" || :
    done
}

with_name() { # names of programs: of the processes on standard input, those which run them
    local pid
    while read -r pid; do
        case " $* " in *" $(cat "/proc/$pid/comm" 2>/dev/null || :) "*) echo "$pid" ;; esac
    done
}

written() { # files with process ids: these; where root may not look at others' environments, as in many containers
    cat "$@" 2>/dev/null || :
}

tree() { # processes: they and all that descends from them
    local pid
    for pid in "$@"; do
        echo "$pid"
        # shellcheck disable=SC2046 # a list of numbers
        tree $(cat /proc/"$pid"/task/*/children 2>/dev/null || :)
    done
}

end() { # processes: kill them and wait until they are gone
    [ $# -gt 0 ] || return 0
    kill -KILL "$@" 2>/dev/null || :
    wait_for 10 "the end of $*" gone "$@"
}

gone() {
    local pid
    for pid in "$@"; do
        [ ! -e "/proc/$pid" ] || grep -q '^State:.Z' "/proc/$pid/status" 2>/dev/null || return 1
    done
}
