# OpenSSH: a server on loopback addresses that are known as node1, node2 and node3, with keys and configuration of its own.

PORT=22722

install() { [ -x /usr/sbin/sshd ] && have ssh ssh-keygen || packages openssh-server openssh-client; }

ready() { ssh -F "$D/ssh_config" node1 true </dev/null 9>&-; }

stop() {
    local pids
    pids=$(with_variable "SSH_CONNECTION=127.* $PORT")
    if [ -e "$D/sshd.pid" ] && grep -qs "$D/sshd_config" "/proc/$(cat "$D/sshd.pid")/cmdline"; then
        pids="$pids $(tree "$(cat "$D/sshd.pid")")"
    fi
    # shellcheck disable=SC2086 # a list of numbers
    end $pids
    rm -rf "$D"
}

start() {
    test_user
    mkdir -p "$D" /run/sshd # the latter is compiled in, for the separation of privileges
    ssh-keygen -q -t ed25519 -N '' -f "$D/host_key" -C host
    ssh-keygen -q -t ed25519 -N '' -f "$D/user_key" -C user
    cp "$D/user_key.pub" "$D/authorized_keys"
    cat >"$D/sshd_config" <<E
$(for i in 1 2 3; do echo "ListenAddress 127.0.0.$i:$PORT"; done)
HostKey $D/host_key
PidFile $D/sshd.pid
AuthorizedKeysFile $D/authorized_keys
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM no
UseDNS no
StrictModes no
PrintMotd no
PrintLastLog no
MaxStartups 100
E
    for i in 1 2 3; do
        echo "[127.0.0.$i]:$PORT $(cut -d' ' -f1,2 "$D/host_key.pub")" >>"$D/known_hosts"
        printf 'Host node%s\n    HostName 127.0.0.%s\n' "$i" "$i" >>"$D/ssh_config"
    done
    cat >>"$D/ssh_config" <<E
Host *
    Port $PORT
    User root
    IdentityFile $D/user_key
    IdentitiesOnly yes
    BatchMode yes
    UserKnownHostsFile $D/known_hosts
    GlobalKnownHostsFile /dev/null
    ConnectTimeout 5
    LogLevel ERROR
E
    daemon /usr/sbin/sshd -f "$D/sshd_config" -E "$D/sshd.log"
}

exports() {
    echo "export ENGINE_SSH_CONFIG=$D/ssh_config"
    echo "export ENGINE_USER=$TEST_USER"
}
