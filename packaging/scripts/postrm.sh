#!/bin/sh
# After removal, for dpkg (remove, purge) and rpm (0). Nothing that is in force is changed.
set -e

case "${1:-}" in
    remove | purge | 0) ;;
    *) exit 0 ;;
esac
if [ -n "${DPKG_ROOT:-}" ]; then
    exit 0
fi

if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
fi

if [ "$1" = purge ]; then
    rm -f /etc/apparmor.d/local/usr.bin.stockade
    rmdir /etc/stockade 2>/dev/null || :
fi
exit 0
