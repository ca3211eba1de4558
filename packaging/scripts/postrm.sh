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

# Links that `systemctl enable` made lead nowhere now. dpkg keeps them until purge, like configuration. A link to a unit of the
# administrator's own stays.
if [ "$1" != remove ]; then
    for link in /etc/systemd/system/sysinit.target.wants/stockade.service \
        /etc/systemd/system/multi-user.target.wants/stockade-seal.service; do
        if [ -L "$link" ] && [ ! -e "$link" ]; then
            rm -f "$link"
        fi
    done
fi

# The AppArmor profile stays loaded until the next boot: a process that it confines would go on unconfined otherwise.
if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :
fi
exit 0
