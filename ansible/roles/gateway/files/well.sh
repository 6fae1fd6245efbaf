# Asks whether the gateway is well. In the environment: WORD, SITE, WAIT, SOAK, BASELINE, RELEASE.
#
# A gateway of before 0.2.0 has no such command of its own; then that of another release on the host asks it. Where there is none,
# before the first upgrade, the service has to be active, and that is all that can be said.
set -eu
cd /opt/holdfast

asker() {
    for each in current $(cd releases && ls -1 | sort -rV | sed 's,^,releases/,'); do
        if ls "$each"/lib/python3*/site-packages/gateway/cli/health.py >/dev/null 2>&1; then
            echo "/opt/holdfast/$each/bin/holdfast"
            return
        fi
    done
}

seconds() { cut -d. -f1 /proc/uptime; }

started() { systemctl show --property=InvocationID --property=NRestarts --property=MainPID holdfast.service; }

active() {
    end=$(($(seconds) + WAIT))
    until systemctl is-active --quiet holdfast.service; do
        if [ "$(seconds)" -ge "$end" ]; then
            echo 'NOT OK    running: the service is not active; systemctl status holdfast says why'
            return 1
        fi
        sleep 1
    done
    echo 'ok        running: the service is active; its release cannot be asked for more'
}

ask() {
    if [ -z "$by" ]; then active; return; fi
    wait=$1
    shift
    "$by" health "$SITE" --wait "$wait" ${BASELINE:+--baseline "$BASELINE"} ${RELEASE:+--release "$RELEASE"} "$@"
}

gate() {
    ask "$WAIT" || return 1
    first=$(started)
    end=$(($(seconds) + SOAK))
    while [ "$(seconds)" -lt "$end" ]; do
        sleep 3
        told=$(ask 20) || { echo "$told"; return 1; }
        if [ "$(started)" != "$first" ]; then
            echo 'NOT OK    running: the gateway ended and was started anew while it was watched; journalctl -u holdfast says why'
            return 1
        fi
    done
}

note() { # what is not well now, for a later question to excuse; empty where it cannot be asked
    BASELINE=
    if [ -z "$by" ]; then return; fi
    ask "$WAIT" --json || [ $? -eq 1 ]
}

by=$(asker)
"$WORD"
