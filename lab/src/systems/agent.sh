#!/bin/sh
# The lab's hand inside a guest: runs the commands that the host sends on the second serial port.
#
#   host   <number> <command, base64>
#   guest  hello <boot id>
#          > <a line that the command printed>
#          = <number> <exit status>
port=/dev/ttyS1
stty -F "$port" raw -echo
exec 3<>"$port"
echo "hello $(cat /proc/sys/kernel/random/boot_id)" >&3
while read -r number command <&3; do
    [ -n "$command" ] || continue
    script=$(echo "$command" | base64 -d)
    status=$({ { sh -c "$script" 2>&1 </dev/null 3>&- 4>&-; echo $? >&4; } | sed -e 's/^/> /' -e '$a\' >&3; } 4>&1)
    echo "= $number $status" >&3
done
