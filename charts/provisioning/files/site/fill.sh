# Fills a server's disk from the image, once, and gives it its identity. Runs in the init container of every start.
#
# The one copy of this text: the Local provider embeds it (include_str!) and the chart's admission policy compares the
# Pod's command with it, so that neither can drift from the other.
set -eu
disk=/disk
keys=/keys
root=$disk/root

if [ ! -d "$root" ]; then
  # A cut in the middle leaves `filling` and no `root`: begin again. Only the rename makes it a disk.
  rm -rf "$disk/filling" "$disk/torn"
  new=$disk/filling
  mkdir "$new"
  # sh has no pipefail: the first tar's failure is left in a file.
  { tar -C / --one-file-system --exclude=./disk --exclude=./keys --numeric-owner --xattrs-include=security.capability \
      -cf - . || touch "$disk/torn"; } |
    tar -C "$new" --numeric-owner --xattrs-include=security.capability -xpf -
  if [ -e "$disk/torn" ]; then
    echo "failed to copy the image to the disk" >&2
    exit 1
  fi
  mkdir -p "$new/proc" "$new/sys" "$new/dev" "$new/run" "$new/tmp" "$new/mnt" "$new/root/.ssh" \
    "$new/etc/ssh/sshd_config.d" "$new/etc/systemd/system" "$new/var/lib/dbus"
  chmod 1777 "$new/tmp"
  chmod 0700 "$new/root/.ssh"
  # Not systemd-machine-id-setup: in a virtual machine it may take the host's id for all servers.
  tr -d - < /proc/sys/kernel/random/uuid > "$new/etc/machine-id"
  ln -sf /etc/machine-id "$new/var/lib/dbus/machine-id"
  # One host key, and root by key only. The first value wins in sshd, so a package's drop-in does not undo this.
  rm -f "$new"/etc/ssh/ssh_host_*
  printf '%s\n' 'HostKey /etc/ssh/ssh_host_ed25519_key' 'PermitRootLogin prohibit-password' \
    'PasswordAuthentication no' 'KbdInteractiveAuthentication no' \
    > "$new/etc/ssh/sshd_config.d/00-provisioning.conf"
  # A privileged pod sees the node's terminals and kernel parameters: neither is the server's to use at boot.
  for unit in getty@.service console-getty.service systemd-sysctl.service; do
    ln -sf /dev/null "$new/etc/systemd/system/$unit"
  done
  sync -f "$new"
  mv "$new" "$root"
fi

# Every start, also after a cut between the rename and here. What a person added later stays.
cat /proc/sys/kernel/hostname > "$root/etc/hostname"
if [ -s "$keys/ssh_host_ed25519_key" ]; then
  install -m 0600 "$keys/ssh_host_ed25519_key" "$root/etc/ssh/ssh_host_ed25519_key"
  touch "$root/root/.ssh/authorized_keys"
  chmod 0600 "$root/root/.ssh/authorized_keys"
  if ! grep -qxFf "$keys/authorized_keys" "$root/root/.ssh/authorized_keys"; then
    cat "$keys/authorized_keys" >> "$root/root/.ssh/authorized_keys"
  fi
elif [ ! -s "$root/etc/ssh/ssh_host_ed25519_key" ]; then
  echo "the Secret with this server's host key is gone: delete the Server and create it again" >&2
  exit 1
fi
sync -f "$root"
