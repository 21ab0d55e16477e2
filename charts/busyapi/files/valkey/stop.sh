# Before this server stops, another one takes over: the flusher promotes it on request. Without an answer in time the
# server stops all the same, as in a crash.
. /etc/valkey/tier.sh
HANDOVER_SECONDS=40 LEAVE_SECONDS=5 APART_SECONDS=1
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
# As long as commits need this server. The Sentinel of this pod may execute the failover, the other replicas follow only
# at its end, and until then this server alone confirms. It is over when the record of the flusher, which this server
# has as a replica, allows commits that it and all others confirm.
are_others_confirming() {
  record=$(call "$HOSTNAME" 6379 pod get "$PREFIX:{0}:replicas")
  case $record in *'"refusal": ""'*) ;; *) return 1 ;; esac
  for server in $HOSTNAME $(others); do
    [ "$server" = "$primary" ] && continue
    case $record in *"\"$server:6379\""*) ;; *) return 1 ;; esac
  done
}
end=$(($(date +%s) + LEAVE_SECONDS))
while [ $asked != 0 ] && [ "$(date +%s)" -lt $end ]; do
  { read -r role; read -r primary; } <<END
$(call "$HOSTNAME" 6379 pod role)
END
  # When this server leaves, commits wait for a moment: not right behind the hand-over, when they waited too.
  if [ "$role" = slave ] && are_others_confirming; then sleep $APART_SECONDS; break; fi
  sleep 0.1
done
touch /run/valkey/stopped
