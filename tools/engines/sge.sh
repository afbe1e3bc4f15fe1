# Son of Grid Engine on this host: queue all.q with 4 slots, parallel environment smp.

BIN=/usr/lib/gridengine
QMASTER_PORT=${QMASTER_PORT:-16444} EXECD_PORT=${EXECD_PORT:-16445}
SLOTS=4
cell() { echo "$D/root"; }

install() {
    local package
    [ -x $BIN/sge_qmaster ] && [ -x $BIN/sge_execd ] && [ -x $BIN/qsub ] && return
    have debconf-set-selections || impossible "debconf is missing"
    for package in common client master exec; do # else the packages make a cluster of their own
        echo "gridengine-$package shared/gridengineconfig boolean false"
    done | debconf-set-selections
    packages gridengine-master gridengine-exec gridengine-client
}

client() { # a command with the variables of a client
    env SGE_ROOT="$D/root" SGE_CELL=default SGE_QMASTER_PORT=$QMASTER_PORT SGE_EXECD_PORT=$EXECD_PORT \
        PATH="$PATH:$BIN" "$@"
}

ready() { client qstat -f 2>/dev/null | awk -v queue="all.q@$(hostname)" '$1 == queue && NF == 5 { ok = 1 } END { exit !ok }'; }

stop() {
    local ours
    # the execution daemon first, or it would report the ends of its jobs; jobs carry the folder in their environment
    # shellcheck disable=SC2046 # lists of numbers
    end $({ with_variable "SGE_ROOT=$D/root" && written "$D"/execd/*/execd.pid; } | with_name sge_execd)
    ours=$({ with_variable "SGE_ROOT=$D/root" && written "$D"/qmaster/qmaster.pid; } | with_name sge_shepherd sge_qmaster)
    # shellcheck disable=SC2046,SC2086
    end $(tree $ours) $(with_variable "SGE_JOB_SPOOL_DIR=$D/*")
    rm -rf "$D"
}

make_cell() { # everything that a fresh installation asks for
    local common=$D/root/default/common host name share=/usr/share/gridengine
    host=$(hostname)
    mkdir -p "$common" "$D"/qmaster/job_scripts "$D"/execd "$D"/spooldb "$D"/jobtmp
    for name in bin lib util utilbin; do ln -s /var/lib/gridengine/$name "$D/root/$name"; done
    chmod 1777 "$D/jobtmp"
    sed -e "s|^spooling_params .*|spooling_params $D/spooldb|" -e "s|^qmaster_spool_dir .*|qmaster_spool_dir $D/qmaster|" \
        -e "s|^ignore_fqdn .*|ignore_fqdn true|" $share/default-bootstrap >"$common/bootstrap"
    echo "$host" >"$common/act_qmaster"
    echo test >"$common/cluster_name"
    echo "$host localhost" >"$common/host_aliases" # 127.0.0.1 is called localhost when it is resolved back
    # root may submit, load is reported quickly, no mail, a deleted job's every process ends
    sed -e "s|^execd_spool_dir .*|execd_spool_dir $D/execd|" -e "s|^mailer .*|mailer /bin/true|" \
        -e "s|^administrator_mail .*|administrator_mail none|" -e "s|^min_uid .*|min_uid 0|" -e "s|^min_gid .*|min_gid 0|" \
        -e "s|^load_report_time .*|load_report_time 00:00:01|" -e "s|^max_unheard .*|max_unheard 00:00:30|" \
        -e "s|^execd_params .*|execd_params ENABLE_ADDGRP_KILL=TRUE|" -e "s|^gid_range .*|gid_range 65400-65499|" \
        -e "s|^max_aj_tasks .*|max_aj_tasks 10|" -e "s|flush_time=00:00:15|flush_time=00:00:01|" \
        $share/default-configuration >"$D/global.conf"
    chown -R sgeadmin:sgeadmin "$D/root" "$D/qmaster" "$D/execd" "$D/spooldb" "$D/global.conf"
    as_admin() { client runuser -u sgeadmin -- "$@" >>"$D/daemons.log" 2>&1; }
    as_admin $BIN/spoolinit berkeleydb libspoolb "$D/spooldb" init &&
        as_admin $BIN/spooldefaults configuration "$D/global.conf" &&
        as_admin $BIN/spooldefaults complexes $share/util/resources/centry &&
        as_admin $BIN/spooldefaults usersets $share/util/resources/usersets &&
        as_admin $BIN/spooldefaults managers root sgeadmin || die "the spool cannot be made"
}

make_queue() {
    local host
    host=$(hostname)
    client qconf -ss | grep -qx "$host" || client qconf -as "$host"
    # run a job when it comes, and look each second
    client qconf -ssconf | sed -e 's/^schedule_interval .*/schedule_interval 0:0:1/' \
        -e 's/^flush_submit_sec .*/flush_submit_sec 1/' -e 's/^flush_finish_sec .*/flush_finish_sec 1/' \
        -e 's/^job_load_adjustments .*/job_load_adjustments NONE/' -e 's/^schedd_job_info .*/schedd_job_info true/' >"$D/sched"
    client qconf -Msconf "$D/sched"
    printf 'group_name @allhosts\nhostlist %s\n' "$host" >"$D/group"
    for name in hostname\ "$host" load_scaling\ NONE complex_values\ NONE user_lists\ NONE xuser_lists\ NONE \
        projects\ NONE xprojects\ NONE usage_scaling\ NONE report_variables\ NONE; do echo "$name"; done >"$D/host"
    client qconf -Ae "$D/host"
    client qconf -Ahgrp "$D/group"
    sed -e "s/^pe_name .*/pe_name smp/" -e "s/^slots .*/slots 99/" -e "s/^control_slaves .*/control_slaves TRUE/" \
        /usr/share/gridengine/util/resources/pe/smp | grep -v '^#' >"$D/pe"
    client qconf -Ap "$D/pe"
    cat >"$D/queue" <<E
qname all.q
hostlist @allhosts
seq_no 0
load_thresholds NONE
suspend_thresholds NONE
nsuspend 1
suspend_interval 00:05:00
priority 0
min_cpu_interval 00:05:00
processors UNDEFINED
qtype BATCH INTERACTIVE
ckpt_list NONE
pe_list smp
rerun FALSE
slots $SLOTS
tmpdir $D/jobtmp
shell /bin/sh
prolog NONE
epilog NONE
shell_start_mode posix_compliant
starter_method NONE
suspend_method NONE
resume_method NONE
terminate_method NONE
notify 00:00:05
owner_list NONE
user_lists NONE
xuser_lists NONE
subordinate_list NONE
complex_values NONE
projects NONE
xprojects NONE
calendar NONE
initial_state default
$(for limit in s_rt h_rt s_cpu h_cpu s_fsize h_fsize s_data h_data s_stack h_stack s_core h_core s_rss h_rss s_vmem h_vmem; do
        echo "$limit INFINITY"
    done)
E
    client qconf -Aq "$D/queue"
}

start_daemon() { # sge_qmaster or sge_execd
    daemon SGE_ROOT="$D/root" SGE_CELL=default SGE_QMASTER_PORT=$QMASTER_PORT SGE_EXECD_PORT=$EXECD_PORT \
        SGE_CLUSTER_NAME=test $BIN/"$1"
}

start() {
    test_user
    mkdir -p "$D"
    make_cell
    start_daemon sge_qmaster
    wait_for 30 "the queue master" client qconf -sh
    make_queue >>"$D/daemons.log" 2>&1 || die "the queue cannot be made"
    start_daemon sge_execd
}

exports() {
    echo "export SGE_ROOT=$D/root SGE_CELL=default SGE_CLUSTER_NAME=test"
    echo "export SGE_QMASTER_PORT=$QMASTER_PORT SGE_EXECD_PORT=$EXECD_PORT"
    echo "export ENGINE_USER=$TEST_USER"
}
