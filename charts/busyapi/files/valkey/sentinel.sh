# Starts the Sentinel of this pod.
#
# Its file is written again at each start, so that it has the present settings. Kept are the primary and the epochs: a
# Sentinel must not vote twice in one epoch. The other servers and Sentinels are not kept but listed, because all of
# them have known names: a Sentinel that starts while the primary is down must know whom to promote. Its id is made from
# its name, so that it stays the same Sentinel for the others when its volume is lost.
. /etc/valkey/tier.sh
umask 077
trap exit TERM

id_of() { printf %s "$1" | sha1sum | cut -c 1-40; }
quoted() { sed 's/[\\"]/\\&/g; s/.*/"&"/' "/etc/valkey-logins/$1-password"; }

# The first installation has no file and no answer: it begins with the server 0.
primary=$NAME-0 epoch=0 current=0 leader=0
if [ -s $sentinel_conf ]; then
  while read -r _ name service_or_value value _; do
    case $name in
      monitor) primary=$value ;;
      config-epoch) epoch=$value ;;
      leader-epoch) leader=$value ;;
      current-epoch) current=$service_or_value ;;
    esac
  done < $sentinel_conf
else
  # An empty volume: the others may know more.
  answers=0
  for _ in 1 2 3; do
    for server in $(others); do
      answer=$(ask_sentinel "$server")
      [ -n "$answer" ] || continue
      answers=$((answers + 1))
      if [ "${answer% *}" -ge "$epoch" ]; then epoch=${answer% *} primary=${answer#* }; fi
    done
    [ $answers = 0 ] || break
    pause 1
  done
  current=$epoch leader=$epoch
fi

{
  cat /etc/valkey/sentinel.conf
  echo "sentinel myid $(id_of "$HOSTNAME")"
  echo "sentinel announce-ip $HOSTNAME"
  echo "sentinel monitor $service $primary 6379 $quorum"
  echo "sentinel auth-user $service sentinel"
  printf '%s\n' "sentinel auth-pass $service $(quoted sentinel)"
  echo "sentinel sentinel-user sentinel"
  printf '%s\n' "sentinel sentinel-pass $(quoted sentinel)"
  echo "sentinel config-epoch $service $epoch"
  echo "sentinel leader-epoch $service $leader"
  echo "sentinel current-epoch $current"
  for server in $HOSTNAME $(others); do
    [ "$server" = "$primary" ] || echo "sentinel known-replica $service $server 6379"
    [ "$server" = "$HOSTNAME" ] || echo "sentinel known-sentinel $service $server 26379 $(id_of "$server")"
  done
} > $sentinel_conf.new
mv $sentinel_conf.new $sentinel_conf

# A Sentinel reads its certificate only when it starts. The others stay connected meanwhile: it takes a moment.
read_certificate() { [ -z "$TLS" ] || cat /etc/valkey-tls/tls.crt /etc/busyapi/redis-ca/ca.crt; }
start() {
  loaded=$(read_certificate)
  valkey-server $sentinel_conf --sentinel &
  sentinel=$!
}
# It writes each change of its file at once, so it needs no time to stop. On SIGTERM it could take long: it does nothing
# else while it looks up a name, and the names of servers that the release no longer has do not exist.
stop() {
  kill -KILL $sentinel
  wait $sentinel
}
trap 'stop; exit' TERM
start
while kill -0 $sentinel 2>/dev/null; do
  if [ "$(read_certificate)" != "$loaded" ]; then
    stop
    start
    echo "The Sentinel has read the certificate."
  fi
  pause 5
done
echo "The Sentinel has ended."
exit 1
