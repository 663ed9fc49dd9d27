#!/usr/bin/env bash
# Makes an unpacked Debian the guest: root by SSH key, one network card, no service the tests do not need.
#
#   guest.sh ROOT KEY.PUB
set -euo pipefail
root=$1 key=$2
units=$root/etc/systemd/system

echo rrun-vm >"$root/etc/hostname"
printf '127.0.0.1 localhost\n127.0.1.1 rrun-vm\n::1 localhost\n' >"$root/etc/hosts"
# An empty machine ID makes systemd treat each boot as the first, which costs seconds.
echo 0123456789abcdef0123456789abcdef >"$root/etc/machine-id"
: >"$root/etc/fstab" # the initrd mounts the root; a line for it would wait for udev
printf 'virtio_net\n' >"$root/etc/modules-load.d/rrun-vm.conf"

install -D -m 0600 "$key" "$root/root/.ssh/authorized_keys"
chmod 0700 "$root/root/.ssh"
cat >"$root/etc/ssh/sshd_config.d/rrun-vm.conf" <<'E'
UseDNS no
UsePAM no
PasswordAuthentication no
MaxSessions 100
E

# The address that qemu's user network forwards to; nothing outside can be reached from here.
cat >"$units/rrun-vm-network.service" <<'E'
[Unit]
Description=eth0
DefaultDependencies=no
After=systemd-modules-load.service
Before=ssh.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'for i in $(seq 500); do [ -e /sys/class/net/eth0 ] && break; sleep 0.02; done; \
  ip link set lo up && ip link set eth0 up && ip addr add 10.0.2.15/24 dev eth0 && ip route add default via 10.0.2.2'
[Install]
WantedBy=multi-user.target
E
# The host waits for this line on the serial port.
cat >"$units/rrun-vm-ready.service" <<'E'
[Unit]
Description=tell the host
After=multi-user.target ssh.service rrun-vm-network.service
[Service]
Type=oneshot
ExecStart=/bin/sh -c 'echo "rrun-vm is up" >/dev/ttyS0'
[Install]
WantedBy=multi-user.target
E
chroot "$root" systemctl --quiet enable rrun-vm-network rrun-vm-ready ssh

for unit in apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service \
  fstrim.timer systemd-timesyncd.service systemd-firstboot.service systemd-hwdb-update.service \
  systemd-journal-catalog-update.service systemd-update-done.service ldconfig.service systemd-pstore.service \
  systemd-random-seed.service systemd-sysusers.service systemd-binfmt.service getty.target getty@tty1.service \
  serial-getty@ttyS0.service docker-registry.service systemd-logind.service systemd-remount-fs.service \
  dev-hugepages.mount dev-mqueue.mount sys-kernel-debug.mount sys-kernel-tracing.mount sys-fs-fuse-connections.mount; do
  ln -sf /dev/null "$units/$unit"
done
