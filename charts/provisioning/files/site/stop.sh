# Stops a server in order before the kubelet's SIGTERM, which would only make systemd execute itself again.
#
# The one copy of this text: see fill.sh. 37 is SIGRTMIN+3 with glibc: systemd halts. This loop ends with the container, killed, which
# the kubelet reports as an Event FailedPreStopHook; one that returned earlier would bring the SIGTERM in mid-halt.
kill -37 1
while :; do sleep 1; done
