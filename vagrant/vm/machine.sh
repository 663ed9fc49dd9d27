# shellcheck shell=bash
# One virtual machine: boot, reach, reboot, cut the power, stop. Sourced by vm.sh, which sets $image (what
# to boot) and $run (a directory of this machine's own). Whatever runs is known by its pid in $run.

# kvm_works: a processor that runs one sector of code, which tells qemu to exit with 33. /dev/kvm may be
# there and yet be unusable (nested, or filtered by the cloud's hypervisor).
kvm_works() {
  [ -r /dev/kvm ] && [ -w /dev/kvm ] || return 1
  local sector=$run/sector code=0
  printf '\xb0\x10\xe6\xf4\xf4' >"$sector" # mov al,16; out 0xf4,al; hlt
  truncate -s 510 "$sector"
  printf '\x55\xaa' >>"$sector"
  # In a subshell that hears of no crash.
  (timeout -k 1 10 qemu-system-x86_64 -accel kvm -cpu max -m 64 -nodefaults -no-user-config -display none -no-reboot \
    -device isa-debug-exit,iobase=0xf4,iosize=4 -drive file="$sector",format=raw,if=floppy </dev/null; exit $?) \
    >/dev/null 2>&1 || code=$?
  [ "$code" = 33 ]
}

# machine_slowdown: how many times slower than a real machine the tests have to expect this one to be.
machine_slowdown() { [ "$(cat "$run/accel")" = kvm ] && echo 1 || echo 6; }

# machine_boot: starts the VM, with the disk it has or else a new one, and waits until it can be reached.
machine_boot() {
  local accel=${RRUN_VM_ACCEL:-} started=$SECONDS tries=0
  if [ ! -e "$run/accel" ]; then
    [ -n "$accel" ] || { kvm_works && accel=kvm || accel=tcg; }
    echo "$accel" >"$run/accel"
    # Its own layer over the image, which nobody writes to.
    qemu-img create -q -f qcow2 -b "$image/root.ext4" -F raw "$run/disk.qcow2"
    truncate -s "$payload_size" "$run/payload.raw"
    cp "$image/key" "$run/key"
    chmod 0600 "$run/key"
  fi
  accel=$(cat "$run/accel")
  [ "$accel" = kvm ] || accel=tcg,thread=multi,tb-size=512
  : >"$run/serial.log"
  while :; do
    # Below the range that the kernel hands out by itself; another VM may have taken it, so ask again.
    echo $((20000 + RANDOM % 12000)) >"$run/port"
    machine_qemu "$accel"
    # qemu says at once if it cannot have the port.
    sleep 0.5
    kill -0 "$(cat "$run/pid")" 2>/dev/null && break
    grep -q 'host forwarding' "$run/qemu.log" && [ $((tries += 1)) -lt 20 ] || { cat "$run/qemu.log" >&2; return 1; }
  done
  machine_wait 1
  echo "VM up in $((SECONDS - started)) s ($(cat "$run/accel"), Linux $(machine_ssh uname -r))"
}

machine_qemu() {
  local append="console=ttyS0 panic=-1 quiet net.ifnames=0 systemd.show_status=0 mitigations=off nokaslr"
  append+=" cryptomgr.notests no_timer_check tsc=reliable random.trust_cpu=on apparmor=1 security=apparmor"
  setsid qemu-system-x86_64 -M pc -accel "$1" -cpu max -smp 2 -m "${RRUN_VM_MEMORY:-2048}" \
    -nodefaults -no-user-config -display none -kernel "$image/kernel" -initrd "$image/initrd" -append "$append" \
    -drive file="$run/disk.qcow2",format=qcow2,if=virtio,cache=unsafe \
    -drive file="$run/payload.raw",format=raw,if=virtio,cache=unsafe \
    -netdev user,id=n0,restrict=on,hostfwd=tcp:127.0.0.1:"$(cat "$run/port")"-:22 \
    -device virtio-net-pci,netdev=n0,romfile= -device virtio-rng-pci \
    -serial file:"$run/serial.log" -monitor none </dev/null >"$run/qemu.log" 2>&1 9>&- &
  echo $! >"$run/pid"
  disown # its end is no news for this shell
}

# machine_wait N: until the VM has said N times since its start that it is up.
machine_wait() {
  local deadline=$((SECONDS + 300))
  until [ "$(grep -c 'rrun-vm is up' "$run/serial.log")" -ge "$1" ]; do
    if ! kill -0 "$(cat "$run/pid")" 2>/dev/null || [ $SECONDS -gt $deadline ]; then
      echo "the VM did not come up:" >&2
      tail -n 40 "$run/serial.log" "$run/qemu.log" >&2
      return 1
    fi
    sleep 0.2
  done
}

# machine_ssh COMMAND...: in the VM, as root; its exit code, or 124 after $limit seconds (0: none).
machine_ssh() {
  timeout --foreground "${limit:-600}" ssh -F none -q -i "$run/key" -p "$(cat "$run/port")" -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
    -o ControlMaster=auto -o ControlPath="$run/ctl" -o ControlPersist=yes -o ConnectTimeout=60 \
    -o ServerAliveInterval=30 -o ServerAliveCountMax=10 root@127.0.0.1 "$@"
}

# machine_reboot: as an administrator would.
machine_reboot() {
  local ups
  ups=$(grep -c 'rrun-vm is up' "$run/serial.log")
  # Not by `systemctl reboot`, which asks logind, which is not there.
  machine_ssh systemctl start --no-block reboot.target || true
  machine_hang_up
  machine_wait $((ups + 1))
}

# machine_power_cut: the processor stops between two instructions; what had not reached the disk is lost.
machine_power_cut() {
  machine_kill
  machine_boot
}

machine_attach() {
  run=$1
  [ -e "$run/pid" ] && kill -0 "$(cat "$run/pid")" 2>/dev/null
}

machine_hang_up() { ssh -q -o ControlPath="$run/ctl" -O exit root@127.0.0.1 2>/dev/null || true; }

machine_kill() {
  machine_hang_up
  [ -e "$run/pid" ] || return 0
  local pid tries=0
  pid=$(cat "$run/pid")
  kill -KILL "$pid" 2>/dev/null || true
  while kill -0 "$pid" 2>/dev/null && [ $((tries += 1)) -lt 100 ]; do sleep 0.05; done
}

machine_stop() { machine_kill; }
