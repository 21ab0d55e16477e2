# Starts a server as what it must be: the primary, or a replica of it.
#
# Which server is the primary: the Sentinels know it, each writes it to its file on the volume of its pod, and each
# change has a larger epoch. So the largest epoch counts, of a majority of all Sentinels: this pod's by its file, the
# others' by asking them. Where only a minority answers, this waits.
#
#   this pod restarts                  the others answer: it starts as a replica of the server that they name
#   the primary restarts               they name this server: it waits 10 seconds for another one to take over, because
#                                      the replicas of a restarted primary must copy everything. Then, or if no other
#                                      server has data, it starts as the primary, with its data
#   all pods were down                 the files say which one was the primary. It starts as that, with its data
#   a stale one is back first          its file is old. It waits for the majority, which has a larger epoch
#   this volume is empty, a replica    it starts as a replica, and copies everything
#   this volume is empty, the primary  it waits: an empty primary would empty its replicas. The Sentinels find it
#                                      down, the flusher promotes another server, and this one becomes its replica
#   the first installation             every volume is empty. The Sentinels name the server 0, which starts as
#                                      the primary once every other server has answered that it is empty too
#   valkey.replicas 1 to 3             the server 0 has data, and the two new ones name it
#   all volumes are lost               all wait. Only a person can decide: see the message
#
# A wrong decision loses nothing by itself: the flusher uses only a primary that has every acknowledged usage.
. /etc/valkey/tier.sh
umask 077
trap exit TERM
rm -f /run/valkey/stopped

has_data() { [ -n "$(ls /data/appendonlydir 2>/dev/null)" ]; }

are_others_empty() {
  for server in $(others); do
    [ "$(call "$server" 6379 pod dbsize)" = 0 ] || return 1
  done
}

can_other_take_over() {
  for server in $(others); do
    case $(call "$server" 6379 pod dbsize) in "" | 0 | *[!0-9]*) ;; *) return 0 ;; esac
  done
  return 1
}

# Set primary, or problem.
find_primary() {
  primary= problem= highest=-1 answers=0
  for source in own $(others); do
    if [ "$source" = own ]; then answer=$(read_own_file); else answer=$(ask_sentinel "$source"); fi
    [ -n "$answer" ] || continue
    answers=$((answers + 1))
    if [ "${answer% *}" -gt $highest ]; then highest=${answer% *} primary=${answer#* }; fi
  done
  override="If all others are lost for good: kubectl exec $HOSTNAME -c valkey -- touch /data/start-as-primary"
  if [ $answers -lt $quorum ]; then
    problem="Waiting: $answers of $REPLICAS Sentinels say which server is the primary, $quorum must. $override"
  elif [ "$primary" = "$HOSTNAME" ] && ! has_data; then
    if [ "$HOSTNAME" = "$NAME-0" ] && are_others_empty; then
      echo "All servers are empty: this one begins as the primary."
    else
      problem="Waiting: this server is the primary, and its volume is empty. The flusher promotes another. At the first start, it waits for all $REPLICAS servers. $override"
    fi
  elif [ "$primary" = "$HOSTNAME" ] && [ "$(date +%s)" -lt $takeover_end ] && can_other_take_over; then
    problem="Waiting at most 10 seconds: this server was the primary, and another one may take over."
  fi
}

takeover_end=$(($(date +%s) + 10))
while true; do
  find_primary
  [ -n "$problem" ] || break
  if [ -e /data/start-as-primary ]; then
    rm /data/start-as-primary
    echo "This server starts as the primary, because /data/start-as-primary was there."
    primary=$HOSTNAME
    break
  fi
  say "$problem"
  pause 1
done

password=$(sed 's/[\\"]/\\&/g' /etc/valkey-logins/replication-password)
{
  cat /etc/valkey/valkey.conf
  echo "replica-announce-ip $HOSTNAME"
  printf 'masterauth "%s"\n' "$password"
  [ "$primary" = "$HOSTNAME" ] || echo "replicaof $primary 6379"
} > /run/valkey/valkey.conf
echo "The primary is $primary."
exec valkey-server /run/valkey/valkey.conf
