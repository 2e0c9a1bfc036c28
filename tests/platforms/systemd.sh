#!/usr/bin/env bash
# systemd itself over conf/systemd, as docs/hosts/systemd.md has its commands. tests/systemd.rs starts it in mount and pid
# namespaces of its own, as root. The user's instance of systemd does without being the machine's init.
#
#   systemd.sh CONF PROGRAM FOLDER      FOLDER holds app.py, which answers "v1"
set -euo pipefail

conf=$1 program=$2 folder=$3

main() {
  start_systemd
  trap stop_systemd EXIT
  systemctl enable --now monoceros.socket monoceros.service
  say "serves when the start returns" "$(get)"
  say "status" "$(show StatusText)"
  pid=$(show MainPID)
  : >"$folder/failures"
  clients &
  clients=$!

  sed -i s/v1/v2/ "$folder/app.py"
  systemctl reload monoceros
  say "after reload" "$(until_it_says v2)"
  sed -i s/v2/v3/ "$folder/app.py"
  systemctl kill --kill-who=main --signal=SIGRTMIN monoceros
  say "after the upgrade in place" "$(until_it_says v3)"
  for signal in SIGTTIN SIGTTOU SIGUSR1; do
    systemctl kill --kill-who=main --signal="$signal" monoceros
  done
  [ "$(show MainPID)" = "$pid" ] || fail "the main process has changed"
  sed -i s/v3/v4/ "$folder/app.py"
  systemctl restart monoceros
  say "after restart" "$(get)"
  [ "$(show MainPID)" != "$pid" ] || fail "the main process has not changed"
  [ "$(show NRestarts)" = 0 ] || fail "systemd has restarted the service"

  kill "$clients"
  wait "$clients" || :
  say "failed requests" "$(wc -l <"$folder/failures")"
  systemctl stop monoceros.socket monoceros.service
  say "ended as" "$(show Result) $(show ExecMainStatus)"

  sed -i '1s/^/raise RuntimeError\n/' "$folder/app.py"
  systemctl start monoceros.socket
  if systemctl start monoceros.service; then fail "an application that cannot be loaded was started"; fi
  say "an application that cannot be loaded" "$(show ActiveState) $(show ExecMainStatus) $(show NRestarts)"
}

# The units with our paths, and without what a user's instance cannot have: other users, and folders of its own.
start_systemd() {
  local units=$folder/home/.config/systemd/user
  mount -t tmpfs tmpfs /run
  mkdir -p /run/systemd/system /run/user/0 "$units"
  export XDG_RUNTIME_DIR=/run/user/0 HOME=$folder/home
  unset DBUS_SESSION_BUS_ADDRESS
  sed -e "s|^ExecStart=.*|ExecStart=$program --graceful-timeout 25 app:application|" -e "s|/srv/app|$folder|" \
    -e '/^\(User\|Group\|Private\|Protect\|NoNew\|RuntimeDirectory\)/d' -e 's|multi-user.target|default.target|' \
    "$conf/monoceros.service" >"$units/monoceros.service"
  sed -e '/^SocketUser/d' "$conf/monoceros.socket" >"$units/monoceros.socket"
  own_groups >"$folder/groups"
  /lib/systemd/systemd --user >"$folder/systemd.log" 2>&1 &
  for _ in $(seq 200); do
    if [ -S /run/user/0/systemd/private ]; then return; fi
    sleep 0.05
  done
  fail "systemd does not start: $(cat "$folder/systemd.log")"
}

stop_systemd() {
  command systemctl --user stop monoceros.socket monoceros.service || :
  command systemctl --user exit || :
  wait %1 || :
  own_groups | grep -vxFf "$folder/groups" | xargs --no-run-if-empty rmdir || :
}

# The groups that systemd makes in every hierarchy, and leaves there.
own_groups() {
  find /sys/fs/cgroup -depth -type d \( -path '*/app.slice*' -o -name init.scope \)
}

systemctl() {
  command systemctl --user "$@" 2>>"$folder/systemctl.log"
}

show() {
  systemctl show --value --property="$1" monoceros.service
}

get() {
  curl --silent --show-error --fail --max-time 20 --unix-socket /run/monoceros.sock http://host/
}

until_it_says() {
  for _ in $(seq 400); do
    if [ "$(get)" = "$1" ]; then break; fi
    sleep 0.05
  done
  get
}

# Asks until it is ended, and notes what was not answered.
clients() {
  while :; do
    get >/dev/null || echo failed >>"$folder/failures"
  done
}

say() {
  printf '%s: %s\n' "$1" "$2"
}

fail() {
  say "failed" "$1"
  exit 1
}

main
