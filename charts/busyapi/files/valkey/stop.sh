# Before this server stops, another one takes over: the flusher promotes it on request. Without an answer in time the
# server stops all the same, as in a crash.
. /etc/valkey/tier.sh
HANDOVER_SECONDS=40 LEAVE_SECONDS=5
address=$HOSTNAME:6379 asked=0 end=$(($(date +%s) + HANDOVER_SECONDS))
while [ "$(date +%s)" -lt $end ]; do
  { read -r role; read -r _; read -r replica; } <<END
$(call "$HOSTNAME" 6379 pod role)
END
  # Without a replica there is no server to take over.
  [ "$role" = master ] && [ -n "$replica" ] || break
  # The release keeps only this server: stay.sh has written it.
  [ "$(call "$HOSTNAME" 6379 pod get "$PREFIX:{0}:stay")" != "$address" ] || break
  # Again after a while: the key expires, and the flusher may have restarted.
  if [ "$(date +%s)" -ge $((asked + 10)) ]; then
    asked=$(date +%s)
    call "$HOSTNAME" 6379 pod set "$PREFIX:{0}:handover" "$address" EX 60 > /dev/null
  fi
  sleep 0.1
done
# The other replicas still follow this server, and only through it do they confirm commits.
end=$(($(date +%s) + LEAVE_SECONDS))
while [ $asked != 0 ] && [ "$(date +%s)" -lt $end ]; do
  case $(call "$HOSTNAME" 6379 pod info replication) in *connected_slaves:[1-9]*) sleep 0.1 ;; *) break ;; esac
done
touch /run/valkey/stopped
