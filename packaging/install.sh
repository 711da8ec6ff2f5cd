#!/bin/sh
# Installs, upgrades, takes back and removes dicom-node on a machine with systemd and Python 3.11 or newer.
#
#   install.sh install               from the bundle or the source tree that this script lies in; enables the service
#   install.sh upgrade               the same beside the present release, checked before it takes over; goes back if it
#                                    does not start
#   install.sh rollback              back to the release before
#   install.sh status                releases, and which one is current
#   install.sh uninstall [--purge]   removes the program; with --purge configuration, keys, spool and ledger as well
#
# /opt/dicom-node/releases/NAME   one release each, a virtual environment;  /opt/dicom-node/current -> one of them
# /etc/dicom-node                 dicom-node.yaml, keyring (root's, 0600)   never overwritten
# /var/lib/dicom-node             spool and ledger                          touched by nothing but the node and --purge
#
# PYTHON names the interpreter (default: python3), EXTRA adds an extra (cpu: TensorFlow for the networks).
# DESTDIR is for tests that look at what is written; with it systemd is left alone.
set -eu

HERE=$(cd "$(dirname "$0")" && pwd)
: "${PYTHON:=python3}" "${EXTRA:=}" "${DESTDIR:=}"
OPT=$DESTDIR/opt/dicom-node
ETC=$DESTDIR/etc/dicom-node
STATE=$DESTDIR/var/lib/dicom-node
UNIT=$DESTDIR/etc/systemd/system/dicom-node.service

say() { echo "dicom-node: $*"; }
fail() {
    echo "dicom-node: $*" >&2
    exit 1
}
manage() { [ -n "$DESTDIR" ] || systemctl "$@"; }
current() { readlink "$OPT/current" 2>/dev/null | sed 's#^releases/##'; }

require_machine() {
    [ "$(id -u)" = 0 ] || fail "run this as root"
    "$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null ||
        fail "Python 3.11 or newer is needed; set PYTHON=/path/to/it"
    "$PYTHON" -c 'import venv, ensurepip' 2>/dev/null || fail "python3-venv is missing: apt-get install python3-venv"
    [ -n "$DESTDIR" ] || [ -d /run/systemd/system ] || fail "systemd does not run here"
}

# From a bundle without any network, from a source tree with pip's package index. Prints the name of the release.
make_release() {
    # a virtual environment cannot be moved, so it is made under its final name and marked whole at the end
    if [ -d "$HERE/wheels" ]; then
        version=$(cat "$HERE/VERSION")
        what="dicom-node${EXTRA:+[$EXTRA]}==$version"
        set -- --no-index --find-links "$HERE/wheels"
    else
        version=$(sed -n 's/^__version__ = "\(.*\)"$/\1/p' "$HERE/../dicom_node/__init__.py")
        what="$HERE/..${EXTRA:+[$EXTRA]}"
        set -- -c "$HERE/../constraints.txt"
    fi
    name=$version number=1
    while [ -e "$OPT/releases/$name/.whole" ]; do
        number=$((number + 1)) name=$version-$number
    done
    rm -rf "${OPT:?}/releases/$name"
    "$PYTHON" -m venv "$OPT/releases/$name" >&2
    "$OPT/releases/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$@" "$what" >&2 || {
        rm -rf "${OPT:?}/releases/$name"
        fail "the release could not be installed; nothing has changed"
    }
    "$OPT/releases/$name/bin/dicom-node" selftest >&2 || {
        rm -rf "${OPT:?}/releases/$name"
        fail "this machine does not reproduce the reference images; nothing has changed"
    }
    touch "$OPT/releases/$name/.whole"
    echo "$name"
}

switch_to() {
    ln -sfn "releases/$1" "$OPT/current.new"
    mv -T "$OPT/current.new" "$OPT/current"
}

# Units and their company, as the current release brings them.
place_units() {
    from=$OPT/current/share/dicom-node/systemd
    install -D -m 0644 "$from/dicom-node.service" "$UNIT"
    install -D -m 0644 "$from/sysusers.conf" "$DESTDIR/etc/sysusers.d/dicom-node.conf"
    install -D -m 0644 "$from/tmpfiles.conf" "$DESTDIR/etc/tmpfiles.d/dicom-node.conf"
    mkdir -p "$DESTDIR/usr/local/bin"
    ln -sfn /opt/dicom-node/current/bin/dicom-node "$DESTDIR/usr/local/bin/dicom-node"
    [ -n "$DESTDIR" ] || {
        systemd-sysusers dicom-node.conf
        systemd-tmpfiles --create dicom-node.conf
    }
    manage daemon-reload
}

# A first configuration and a first key, where there are none.
place_configuration() {
    mkdir -p "$ETC"
    if [ ! -e "$ETC/dicom-node.yaml" ]; then
        install -m 0644 "$OPT/current/share/dicom-node/config/first.yaml" "$ETC/dicom-node.yaml"
    fi
    if [ ! -e "$ETC/keyring" ]; then
        "$OPT/current/bin/dicom-node" keys new --keys "$ETC/keyring"
        say "a first key is in $ETC/keyring; copy that file to a safe place now"
    fi
}

install_first() {
    [ -z "$(current)" ] || fail "release $(current) is installed; use upgrade"
    mkdir -p "$OPT/releases"
    name=$(make_release)
    switch_to "$name"
    place_units
    place_configuration
    manage enable dicom-node.service
    say "release $name is installed. Next: edit $ETC/dicom-node.yaml, then"
    say "    dicom-node config check $ETC/dicom-node.yaml && systemctl start dicom-node"
}

upgrade() {
    before=$(current)
    [ -n "$before" ] || fail "nothing is installed; use install"
    name=$(make_release)
    "$OPT/releases/$name/bin/dicom-node" config check "$ETC/dicom-node.yaml" || {
        rm -rf "${OPT:?}/releases/$name"
        fail "the new release does not take the present configuration; $before goes on"
    }
    take_over "$name" "$before"
}

rollback() {
    before=$(current)
    name=$(cat "$OPT/previous" 2>/dev/null) || fail "there is no release to go back to"
    [ -e "$OPT/releases/$name/.whole" ] || fail "release $name is gone"
    take_over "$name" "$before"
}

# Stop (what is under way is finished), switch, start. If the new one does not come up, the one before goes on with the
# same ledger: what an upgrade adds to it an older release leaves alone, and one that cannot says so and keeps still.
take_over() {
    running=no
    [ -n "$DESTDIR" ] || ! systemctl is-active --quiet dicom-node.service || running=yes
    [ $running = no ] || systemctl stop dicom-node.service
    switch_to "$1"
    place_units
    if [ $running = no ] || systemctl start dicom-node.service; then
        echo "$2" > "$OPT/previous"
        say "release $1 has taken over from $2"
        return
    fi
    say "release $1 does not start; see: journalctl -u dicom-node" >&2
    systemctl stop dicom-node.service || true
    switch_to "$2"
    place_units
    systemctl start dicom-node.service || fail "release $2 does not start either; see: journalctl -u dicom-node"
    fail "release $2 goes on"
}

status() {
    for folder in "$OPT"/releases/*/; do
        [ -e "$folder/.whole" ] || continue
        name=$(basename "$folder")
        if [ "$name" = "$(current)" ]; then say "$name (current)"; else say "$name"; fi
    done
}

uninstall() {
    purge=${1:-}
    [ -z "$purge" ] || [ "$purge" = --purge ] || fail "uninstall knows --purge and nothing else"
    [ "$purge" != --purge ] || require_nothing_waits
    manage disable --now dicom-node.service 2>/dev/null || true
    rm -f "$UNIT" "$DESTDIR/etc/sysusers.d/dicom-node.conf" "$DESTDIR/etc/tmpfiles.d/dicom-node.conf" \
        "$DESTDIR/usr/local/bin/dicom-node"
    rm -rf "${OPT:?}"
    manage daemon-reload
    if [ "$purge" = --purge ]; then
        rm -rf "${ETC:?}" "${STATE:?}" "$DESTDIR/var/cache/dicom-node"
        say "removed, with configuration, keys, spool and ledger"
    else
        say "removed; $ETC and $STATE are still there, and nothing in them is lost"
    fi
}

# What was acknowledged and not delivered exists nowhere else.
require_nothing_waits() {
    [ -e "$STATE/ledger.sqlite" ] || return 0
    waiting=$("$OPT/current/bin/python" - "$STATE/ledger.sqlite" <<'PYTHON'
import sqlite3, sys
book = sqlite3.connect(f"file:{sys.argv[1]}?mode=ro", uri=True)
count = "SELECT count(*) FROM"
kept = book.execute(f"{count} instances WHERE state NOT IN ('ready', 'rejected')").fetchone()[0]
unsent = book.execute(f"{count} deliveries WHERE state NOT IN ('delivered', 'dropped')").fetchone()[0]
print(kept + unsent)
PYTHON
    ) || fail "the ledger cannot be read; nothing has been removed"
    [ "$waiting" = 0 ] || fail "$waiting objects are held, dead or not delivered yet and would be lost; see" \
        "'dicom-node queue list', and drop them there first. Nothing has been removed"
}

case "${1:-}" in
install) require_machine && install_first ;;
upgrade) require_machine && upgrade ;;
rollback) require_machine && rollback ;;
status) status ;;
uninstall) require_machine && uninstall "${2:-}" ;;
*) sed -n '2,/^set/s/^# \{0,1\}//p' "$0" && exit 2 ;;
esac
