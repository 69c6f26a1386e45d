# What `up` and `down` share: the state folder and who runs in it.
# shellcheck shell=bash

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
state=${PNEUMATIC_LOCAL:-$root/target/local}
# Started in this order, stopped in the other.
programs=(redis-1 redis-2 redis-3 gateway-1 gateway-2 worker haproxy)

# Tells a process from a later one that was given the same id.
birth() {
  if [ -r "/proc/$1/stat" ]; then
    # The name in parentheses may hold spaces, so count from behind it.
    local after
    after=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null) || return 1
    echo "$(cat /proc/sys/kernel/random/boot_id) $(echo "$after" | cut -d ' ' -f 20)"
  elif [ ! -d /proc/self ]; then
    ps -o lstart= -p "$1"
  else
    return 1
  fi
}

# Prints the id of a program of ours that lives.
living() {
  local file=$state/run/$1.pid pid born
  [ -r "$file" ] || return 1
  { read -r pid && IFS= read -r born; } <"$file" || return 1
  [ "$(birth "$pid" 2>/dev/null)" = "$born" ] || return 1
  echo "$pid"
}

# Ends a program if it is ours and lives, and waits until it is gone.
stop() {
  local pid deadline=$((SECONDS + ${2:-20}))
  if pid=$(living "$1"); then
    kill -TERM "$pid" 2>/dev/null || true
    while living "$1" >/dev/null && ! zombie "$pid"; do
      if [ "$SECONDS" -ge "$deadline" ]; then
        echo "$1 (process $pid) does not end; killing it." >&2
        kill -KILL "$pid" 2>/dev/null || true
        deadline=$((SECONDS + 5))
      fi
      sleep 0.1
    done
  fi
  rm -f "$state/run/$1.pid"
}

# Ended, and only not yet waited for.
zombie() {
  [ -r "/proc/$1/stat" ] && [ "$(sed 's/.*) //' "/proc/$1/stat" | cut -c 1)" = Z ]
}

stop_all() {
  local index
  for ((index = ${#programs[@]} - 1; index >= 0; index--)); do
    stop "${programs[index]}"
  done
}
