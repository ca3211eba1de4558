#!/bin/sh
# Before removal, for dpkg (remove) and rpm (0: the last version goes). Nothing is lifted, and no unit is stopped.
set -e

case "${1:-}" in
    remove | 0) ;;
    *) exit 0 ;;
esac
if [ -n "${DPKG_ROOT:-}" ]; then
    exit 0
fi

if [ -d /run/systemd/system ]; then
    # The exit status also tells warnings and a seal that could not be proven: what counts here is what is in force.
    status=$(stockade status --json 2>&1) || :
    case "$status" in
        *'"stockade": {'*'"sealed": null'*)
            echo "A policy is in force. Removing the package does not lift it: it stays in force until the next boot."
            echo "To lift it, run 'stockade lift' before removing the package, or reboot afterwards."
            ;;
        *'"stockade": {'* | *'sealed, by another version'*)
            echo "A sealed policy is in force. It stays in force until the next boot; nothing can lift it before."
            ;;
    esac
fi
exit 0
