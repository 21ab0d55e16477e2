# Before this server stops, another one takes over: the flusher promotes it on request. Without an answer in time the
# server stops all the same, as in a crash.
. /etc/valkey/tier.sh
address=$HOSTNAME:6379 asked=0 end=$(($(date +%s) + 20))
while [ "$(date +%s)" -lt $end ]; do
  { read -r role; read -r _; read -r replica; } <<END
$(call "$HOSTNAME" 6379 pod role)
END
  # Without a replica there is no server to take over.
  [ "$role" = master ] && [ -n "$replica" ] || break
  # The release keeps only this server: stay.sh has written it.
  [ "$(call "$HOSTNAME" 6379 pod get "$PREFIX:{0}:stay")" != "$address" ] || break
  # Again each second: the flusher may have restarted.
  if [ "$(date +%s)" != $asked ]; then
    asked=$(date +%s)
    call "$HOSTNAME" 6379 pod set "$PREFIX:{0}:handover" "$address" EX 60 > /dev/null
  fi
  sleep 0.1
done
touch /run/valkey/stopped
