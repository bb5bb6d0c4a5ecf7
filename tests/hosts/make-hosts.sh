#!/usr/bin/env bash
# Hosts for tests, out of Linux namespaces: each has its own address, processes, hostname, home, /tmp, boot id and sshd; the
# rest of the file system is shared. Needs root, iproute2 and openssh-server; no systemd, no docker.
#   make-hosts.sh up N        build N hosts, node0...; writes ssh_config, known_hosts and id into $LAB
#   make-hosts.sh down        end every process of theirs, and remove everything
#   make-hosts.sh cut I | heal I              a pulled cable: packets vanish in silence
#   make-hosts.sh reset-ssh I | start-ssh I   end sshd and its sessions, which is noticed; other processes live on
#   make-hosts.sh reboot I                    end all processes, empty /tmp, take another boot id
#   make-hosts.sh wire I [--delay MS] [--loss PERCENT] [--rate MBIT]   a slow wire; without options a good one again
#   make-hosts.sh exec I CMD...               as root
#   make-hosts.sh disk I SIZE                 a small disk for the home
#   make-hosts.sh share I J [apart] | unshare I   host I has the home of host J, `apart` without common locks (bindfs); its own again
#   make-hosts.sh clone I J | unclone I       host I answers at the address of host J too, with its host key (host J is to be cut)
# LAB: the folder; NET: a number from 2 to 254, the third octet of the addresses and part of all names. SHOWN: a folder below /tmp
# that the hosts have too, if any.
set -euo pipefail
: "${LAB:?the folder of the lab}" "${NET:?a number from 2 to 254}"
TAG=tl$NET SUB=10.254.$NET BR=br-tl$NET LOGIN=tunelab
HERE=$(cd "$(dirname "$0")" && pwd)
ns()      { echo "$TAG-h$1"; }
address() { echo "$SUB.$((10 + $1))"; }
die()     { echo "make-hosts: $*" >&2; exit 1; }
pids()    { ip netns pids "$(ns "$1")" 2>/dev/null || true; }
holder()  { cat "$LAB/h$1/holder.pid"; }
inside()  { local i=$1; shift; nsenter -t "$(holder "$i")" -m -u -n -p -- "$@"; }
new_boot_id() { cat /proc/sys/kernel/random/uuid >"$LAB/h$1/boot_id"; }

hold() { # the first process of a host: it takes in orphans, and with it all others end
  local i=$1 d=$LAB/h$1
  # shellcheck disable=SC2016
  setsid nsenter --net="/run/netns/$(ns "$i")" unshare -m -u -p --fork --propagation private bash -c '
    set -e; d=$1 name=$2 home=$3
    hostname "$name"
    mkdir -p "$d/tmp" "$d/home"; chmod 1777 "$d/tmp"
    mount --bind "$d/home" "$home"
    for seen in "$4" "$5"; do   # the lab itself stays in sight
      case $seen in /tmp/*) mkdir -p "$d/tmp/${seen#/tmp/}"; mount --bind "$seen" "$d/tmp/${seen#/tmp/}" ;; esac
    done
    mount --rbind "$d/tmp" /tmp
    mount -t tmpfs -o mode=755,size=16m tmpfs /run; mkdir -p /run/sshd
    mount -t tmpfs -o size=64m tmpfs /dev/shm || true
    sed -n "s/^PPid:\t//p" /proc/self/status >"$d/holder.pid.new"      # still the outer /proc: our number as seen outside
    mount -t proc proc /proc; mount --bind "$d/boot_id" /proc/sys/kernel/random/boot_id
    mv "$d/holder.pid.new" "$d/holder.pid"
    while :; do sleep 3600 & wait; done' bash "$d" "node$i" "$HOME_" "$LAB" "${SHOWN:-}" </dev/null >/dev/null 2>"$d/holder.err" &
  for _ in $(seq 500); do [ -s "$d/holder.pid" ] && return; sleep 0.02; done
  die "host $i did not start: $(cat "$d/holder.err")"
}

start_ssh() {
  local i=$1 d=$LAB/h$1
  inside "$i" /usr/sbin/sshd -f "$d/sshd_config" -E "$d/sshd.log"
  for _ in $(seq 500); do [ -s "$d/sshd.pid" ] && inside "$i" kill -0 "$(cat "$d/sshd.pid")" 2>/dev/null && return; sleep 0.02; done
  die "sshd of host $i did not start: $(tail -3 "$d/sshd.log")"
}

end_all() { # with the first process of a namespace the kernel ends all others
  local first; first=$(holder "$1" 2>/dev/null) || return 0
  kill -9 "$first" 2>/dev/null || return 0
  for _ in $(seq 500); do kill -0 "$first" 2>/dev/null || return 0; sleep 0.02; done
}

good_wire() {
  local i=$1 d=$LAB/h$1 n; n=$(ns "$1")
  [ -s "$d/wire.pid" ] || return 0
  kill "$(cat "$d/wire.pid")" 2>/dev/null || true; rm -f "$d/wire.pid"
  for _ in $(seq 100); do ip -n "$n" link show eth0 >/dev/null 2>&1 || break; sleep 0.02; done
  ip -n "$n" link set veth0 name eth0; ip -n "$n" addr add "$(address "$i")/24" dev eth0; ip -n "$n" link set eth0 up
  ip link set "$TAG-v$i" master "$BR" up; ip neigh flush dev "$BR"
}

slow_wire() { # the kernel may have no netem
  local i=$1 d=$LAB/h$1; shift
  ip link set "$TAG-v$i" down
  setsid python3 "$HERE/slow_wire.py" "$(ns "$i")" "$BR" "$(address "$i")/24" "$@" </dev/null >"$d/wire.out" 2>&1 & echo $! >"$d/wire.pid"
  for _ in $(seq 500); do grep -qs ready "$d/wire.out" && break; sleep 0.02; done
  grep -q ready "$d/wire.out" || die "$(cat "$d/wire.out")"
  ip neigh flush dev "$BR"
}

host() {
  local i=$1 d=$LAB/h$1 n; n=$(ns "$1")
  mkdir -p "$d/home"; chown "$LOGIN:" "$d/home"; chmod 755 "$d"; chmod 700 "$d/home"
  new_boot_id "$i"
  ip netns add "$n"
  ip link add "$TAG-v$i" type veth peer name eth0 netns "$n"
  ip link set "$TAG-v$i" master "$BR" up
  ip -n "$n" link set lo up; ip -n "$n" addr add "$(address "$i")/24" dev eth0; ip -n "$n" link set eth0 up
  ssh-keygen -q -t ed25519 -N '' -C '' -f "$d/hostkey" <<<y >/dev/null
  cp "$LAB/id.pub" "$d/authorized_keys"; chmod 644 "$d/authorized_keys"
  cat >"$d/sshd_config" <<C
ListenAddress $(address "$i")
HostKey $d/hostkey
PidFile $d/sshd.pid
AuthorizedKeysFile $d/authorized_keys
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
UseDNS no
PrintMotd no
AllowUsers $LOGIN
MaxStartups 200:30:400
Subsystem sftp internal-sftp
LogLevel VERBOSE
C
  echo "$(address "$i"),node$i $(cut -d' ' -f1,2 "$d/hostkey.pub")" >>"$LAB/known_hosts"
  printf 'Host node%s\n  HostName %s\n\n' "$i" "$(address "$i")" >>"$LAB/ssh_config"
  hold "$i"; start_ssh "$i"
}

up() {
  (
    flock 9                       # two labs may come up at once
    getent passwd "$LOGIN" >/dev/null || useradd -m -s /bin/bash "$LOGIN"
    usermod -p '*' "$LOGIN"       # `!` means locked, and sshd without PAM would refuse even keys
  ) 9>/tmp/.tune-hosts-user.lock
  HOME_=$(getent passwd "$LOGIN" | cut -d: -f6)
  mkdir -p /run/sshd "$LAB"; chmod 755 "$LAB"
  ssh-keygen -q -t ed25519 -N '' -C '' -f "$LAB/id" <<<y >/dev/null; chmod 600 "$LAB/id"; chmod 644 "$LAB/id.pub"
  : >"$LAB/known_hosts"; : >"$LAB/ssh_config"
  ip link add "$BR" type bridge; ip addr add "$SUB.1/24" dev "$BR"; ip link set "$BR" up
  for i in $(seq 0 $(($1 - 1))); do echo "$((i + 1))" >"$LAB/count"; host "$i"; done
  printf 'Host node*\n  User %s\n  IdentityFile %s\n  IdentitiesOnly yes\n  UserKnownHostsFile %s\n  StrictHostKeyChecking yes\n' \
    "$LOGIN" "$LAB/id" "$LAB/known_hosts" >>"$LAB/ssh_config"
}

down() {
  for i in $(seq 0 $(($(cat "$LAB/count" 2>/dev/null || echo 0) - 1))); do
    [ -s "$LAB/h$i/wire.pid" ] && kill "$(cat "$LAB/h$i/wire.pid")" 2>/dev/null || true
    end_all "$i"; ip netns del "$(ns "$i")" 2>/dev/null || true; ip link del "$TAG-v$i" 2>/dev/null || true
  done
  ip link del "$BR" 2>/dev/null || true
  rm -rf "$LAB"
}

HOME_=$(getent passwd "$LOGIN" | cut -d: -f6 || true)
case ${1:-} in
up)        up "${2:?N}" ;;
down)      down ;;
cut)       ip link set "$TAG-v${2:?I}" down ;;
heal)      ip link set "$TAG-v${2:?I}" up ;;
start-ssh) start_ssh "${2:?I}" ;;
reset-ssh) for p in $(pids "${2:?I}"); do [ "$(cat /proc/"$p"/comm 2>/dev/null)" = sshd ] && kill -9 "$p" || true; done; rm -f "$LAB/h$2/sshd.pid" ;;
reboot)    end_all "${2:?I}"; rm -rf "$LAB/h$2/holder.pid" "$LAB/h$2/sshd.pid" "$LAB/h$2/tmp"; new_boot_id "$2"; hold "$2"; start_ssh "$2" ;;
wire)      i=${2:?I}; shift 2; good_wire "$i"; [ $# -eq 0 ] || slow_wire "$i" "$@" ;;
exec)      i=${2:?I}; shift 2; inside "$i" "$@" ;;
disk)      inside "${2:?I}" mount -t tmpfs -o "size=${3:?SIZE},uid=$(id -u "$LOGIN"),mode=700" tmpfs "$HOME_" ;;
share)     if [ "${4-}" ]; then inside "${2:?I}" bindfs "$LAB/h${3:?J}/home" "$HOME_" # locks of a FUSE mount are its own
           else inside "${2:?I}" mount --bind "$LAB/h${3:?J}/home" "$HOME_"; fi ;;
unshare)   inside "${2:?I}" umount -l "$HOME_" ;;
clone)     i=${2:?I} j=${3:?J}; inside "$i" ip addr add "$(address "$j")/24" dev eth0
           sed "s,^PidFile.*,PidFile $LAB/h$i/clone.pid," "$LAB/h$j/sshd_config" >"$LAB/h$i/clone_config"
           inside "$i" /usr/sbin/sshd -f "$LAB/h$i/clone_config" -E "$LAB/h$i/sshd.log"; ip neigh flush dev "$BR"; echo "$j" >"$LAB/h$i/clone" ;;
unclone)   i=${2:?I}; inside "$i" kill "$(cat "$LAB/h$i/clone.pid")" || true; inside "$i" ip addr del "$(address "$(cat "$LAB/h$i/clone")")/24" dev eth0
           ip neigh flush dev "$BR" ;;
*)         sed -n '2,18p' "$0"; exit 2 ;;
esac
