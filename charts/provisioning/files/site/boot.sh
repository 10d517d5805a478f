# Makes the disk the root of this container and hands over to systemd. Runs at every boot, `systemctl reboot` included.
#
# The one copy of this text: see fill.sh.
set -eu
root=/disk/root
# Nothing mounted from here on may reach the node (it would outlive the pod there).
mount --make-rprivate /
# pivot_root wants a mount point.
mount --bind "$root" "$root"
for folder in proc sys dev; do
  mount --rbind "/$folder" "$root/$folder"
done
# The container's /dev is its own. The node's kernel log is not the server's to read, nor to write.
rm -f "$root/dev/kmsg"
mount -t tmpfs -o mode=0755,nosuid,nodev tmpfs "$root/run"
# Name servers and the pod's own line are the platform's; other lines of /etc/hosts are the server's.
if [ ! -L "$root/etc/resolv.conf" ]; then
  cp /etc/resolv.conf "$root/etc/resolv.conf"
fi
mark='# Lines above are rewritten at every boot.'
touch "$root/etc/hosts"
{ cat /etc/hosts; echo "$mark"; sed "1,/^$mark\$/d" "$root/etc/hosts"; } > "$root/etc/hosts.new"
mv "$root/etc/hosts.new" "$root/etc/hosts"
cd "$root"
pivot_root . mnt
umount -l /mnt
exec chroot . /lib/systemd/systemd
