# What the scripts of a Valkey pod share, with several servers. Sourced by sh.
# NAME is the StatefulSet, REPLICAS the number of servers, TLS is --tls or empty.
service=busyapi
quorum=$((REPLICAS / 2 + 1))
sentinel_conf=/data/sentinel.conf

# Run a command as one of the chart's users, for at most a second: call HOST PORT USER COMMAND…
call() {
  host=$1 port=$2 user=$3
  shift 3
  verify=
  # An expired certificate must not make this server unready for connections that are open.
  if [ -n "$TLS" ] && [ "$host" = "$HOSTNAME" ]; then verify=--insecure
  elif [ -n "$TLS" ]; then verify="--cacert /etc/busyapi/redis-ca/ca.crt"; fi
  # The user probe has no password.
  REDISCLI_AUTH=$(cat "/etc/valkey-logins/$user-password" 2>/dev/null || echo none) timeout 1 \
    valkey-cli -e $TLS $verify -h "$host" -p "$port" --user "$user" --no-auth-warning "$@" 2>/dev/null
}

# Print the names of all servers but this one.
others() {
  n=0
  while [ $n -lt "$REPLICAS" ]; do
    [ "$NAME-$n" = "$HOSTNAME" ] || echo "$NAME-$n"
    n=$((n + 1))
  done
}

# Print "EPOCH PRIMARY", as a Sentinel knows it; nothing if it does not answer.
ask_sentinel() {
  call "$1" 26379 pod sentinel master $service | {
    epoch= primary=
    while read -r name && read -r value; do
      case $name in ip) primary=$value ;; config-epoch) epoch=$value ;; esac
    done
    [ -z "$epoch" ] || echo "$epoch $primary"
  }
}

# Print the same from the file of this pod's Sentinel, which is on the volume.
read_own_file() {
  [ -s $sentinel_conf ] || return 0
  epoch= primary=
  while read -r _ name _ value _; do
    case $name in monitor) primary=$value ;; config-epoch) epoch=$value ;; esac
  done < $sentinel_conf
  [ -z "$primary" ] || echo "${epoch:-0} $primary"
}

# Print a message once.
say() {
  [ "$1" = "${said:-}" ] || echo "$1"
  said=$1
}

# Sleep so that SIGTERM ends the script at once.
pause() {
  sleep "$1" &
  wait $!
}
