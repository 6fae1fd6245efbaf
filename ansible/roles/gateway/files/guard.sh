#!/bin/sh
# Has a host go back to the release and the configuration that it had, unless somebody confirms the new ones in time.
#
#   guard arm SECONDS WHAT   keeps what is there now; after SECONDS, or at the next start of the machine, it is brought back
#   guard disarm             the new ones stay; 3 where the host has gone back already
#   guard back WHY           brings it back now
#
# It needs nobody: the controller may be gone, and the machine may lose its power at any line. Each step can be done again, and one
# rename decides between disarm and back. What is kept holds credentials, so only root can read it, and it goes when it is not needed.
set -eu
umask 077

root=/opt/holdfast
here=$root/guard
unit=holdfast-upgrade-guard
kept='/etc/holdfast /etc/systemd/system/holdfast.service /etc/udev/rules.d/60-holdfast.rules'

arm() {
    if [ -e $here/armed ] || [ -e $here/going ]; then
        echo 'a change is under way already' >&2
        exit 4
    fi
    rm -rf $here/before $here/before.part $here/back
    mkdir $here/before.part
    for each in $kept; do
        if [ -e "$each" ]; then
            mkdir -p "$here/before.part$(dirname "$each")"
            cp -a "$each" "$here/before.part$each"
        fi
    done
    readlink $root/current >$here/before.part/current
    sync
    mv $here/before.part $here/before
    # The timer is gone after a start of the machine; then the service, which is enabled, does it before the gateway starts.
    printf '[Unit]\nDescription=When Holdfast goes back unless it is confirmed\n[Timer]\nOnActiveSec=%s\nAccuracySec=1s\n' "$1" \
        >/run/systemd/system/$unit.timer
    chmod 0644 /run/systemd/system/$unit.timer
    systemctl daemon-reload
    systemctl enable --quiet $unit.service
    echo "$2" >$here/armed.part
    mv $here/armed.part $here/armed
    sync
    systemctl restart $unit.timer
}

disarm() {
    if ! mv $here/armed $here/confirmed 2>/dev/null; then
        [ ! -e $here/back ] || cat $here/back
        exit 3
    fi
    quiet
    # What the release before ran, for a rollback some day to a release that does not understand today's document.
    release=$root/$(cat $here/before/current)
    if [ -d "$release" ] && [ -e $here/before/etc/holdfast/site.json ]; then cp -a $here/before/etc/holdfast/site.json "$release/.site.json"; fi
    rm -rf $here/confirmed $here/before
}

back() {
    if [ -e $here/armed ]; then mv $here/armed $here/going; fi
    if [ ! -e $here/going ]; then # it went back by itself
        [ ! -e $here/back ] || cat $here/back
        exit 0
    fi
    [ -e $here/before/current ] || { echo "$here/before is gone: nothing can be brought back" >&2; exit 1; }
    what=$(cat $here/going)
    for each in $kept; do
        rm -rf "$each.guard"
        if [ -e "$here/before$each" ]; then
            cp -a "$here/before$each" "$each.guard"
            [ ! -d "$each" ] || { rm -rf "$each.gone"; mv "$each" "$each.gone"; }
            mv -T "$each.guard" "$each"
            rm -rf "$each.gone"
        else
            rm -rf "$each"
        fi
    done
    ln -sfn "$(cat $here/before/current)" $root/current.guard
    mv -T $root/current.guard $root/current
    sync
    systemctl daemon-reload
    systemctl restart --no-block holdfast.service
    echo "went back from $what to $(basename "$(cat $here/before/current)") at $(date -u '+%Y-%m-%d %H:%M:%S') UTC: $1" | tee $here/back.part
    mv $here/back.part $here/back
    rm -f $here/going
    rm -rf $here/before
    quiet
}

quiet() {
    systemctl disable --quiet $unit.service
    systemctl stop $unit.timer 2>/dev/null || : # it has run out, or is gone since the machine started
    rm -f /run/systemd/system/$unit.timer
}

exec 9>$here/lock
flock 9
word=$1
shift
"$word" "$@"
