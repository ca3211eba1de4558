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

if [ -d /run/systemd/system ] && status=$(stockade status --json 2>/dev/null); then
    if printf '%s\n' "$status" | grep -q '"sealed": *null'; then
        echo "A policy is in force. Removing the package does not lift it: it stays in force until the next boot."
        echo "To lift it, run 'stockade lift' before removing the package, or reboot afterwards."
    else
        echo "A sealed policy is in force. It stays in force until the next boot; nothing can lift it before."
    fi
fi
exit 0
