#!/bin/sh
# After installation and upgrade, for dpkg (configure VERSION) and rpm (number of installed versions).
# Nothing is enabled, started, applied or lifted here.
set -e

case "${1:-}" in
    configure | [1-9]) ;;
    *) exit 0 ;;
esac

# dpkg without chroot sets DPKG_ROOT: the running system is then another one than the one that is installed to.
if [ -n "${DPKG_ROOT:-}" ]; then
    exit 0
fi

# A system that is only being built in a chroot has no AppArmor of its own, and its host's must not be changed. The profile includes
# the administrator's /etc/apparmor.d/local/usr.bin.stockade if it exists: no empty one is made, and none is removed.
profile=/etc/apparmor.d/usr.bin.stockade
if [ -f "$profile" ] && [ -d /run/systemd/system ] && command -v aa-enabled >/dev/null 2>&1 &&
    aa-enabled --quiet 2>/dev/null; then
    apparmor_parser -r -T -W "$profile" || echo "stockade: AppArmor did not load the profile $profile" >&2
fi

if [ -d /run/systemd/system ]; then
    systemctl --system daemon-reload >/dev/null 2>&1 || :

    # The exit status also tells warnings and a seal that could not be proven: what counts here is what is in force.
    status=$(stockade status --json 2>&1) || :
    level=$(printf '%s\n' "$status" | sed -n 's/.*"level": *"\([a-z]*\)".*/\1/p' | head -n 1)
    case "$status" in
        *'"stockade": {'*'"sealed": null'*)
            echo "A policy is in force (${level:-unknown level}). It stays in force as it is."
            if systemctl --quiet is-active stockade.service 2>/dev/null; then
                echo "The new program applies the policy at the next boot, or with: systemctl reload stockade.service"
            else
                echo "The new program applies the policy of the system with: stockade enforce"
            fi
            ;;
        *'"stockade": {'*)
            echo "A policy is in force (${level:-unknown level}, sealed). It stays in force until the next boot."
            echo "The new program applies the policy at the next boot."
            ;;
        *'sealed, by another version'*)
            echo "A policy is in force, sealed by another version of Stockade. It stays in force until the next boot."
            echo "The new program applies the policy at the next boot, and cannot read what is sealed until then."
            ;;
    esac
fi
exit 0
