# Runs before an upgrade from several servers to one: only the server 0 stays, so it must be the primary, and all
# Sentinels must know it. They write it to their volumes, which the servers 1, 2 and so on may use again later.
. /etc/valkey/tier.sh
target=$NAME-0 end=$(($(date +%s) + 120))
while [ "$(date +%s)" -lt $end ]; do
  agree=0 primary= highest=-1
  for server in $(others); do
    answer=$(ask_sentinel "$server")
    [ -n "$answer" ] || continue
    [ "${answer#* }" != "$target" ] || agree=$((agree + 1))
    if [ "${answer% *}" -gt $highest ]; then highest=${answer% *} primary=${answer#* }; fi
  done
  if [ $agree = "$REPLICAS" ] && [ "$(call "$target" 6379 pod role | head -n 1)" = master ]; then
    # From now on, it does not hand over when its pod stops.
    call "$target" 6379 pod set "$PREFIX:{0}:stay" "$target:6379" EX 900 > /dev/null || continue
    echo "$target is the primary, and all $REPLICAS Sentinels know it."
    exit 0
  fi
  say "Waiting: $agree of $REPLICAS Sentinels name $target, the last primary is ${primary:-unknown}."
  if [ -n "$primary" ] && [ "$primary" != "$target" ]; then
    call "$primary" 6379 pod set "$PREFIX:{0}:handover" "$primary:6379" EX 60 > /dev/null
  fi
  pause 1
done
echo "Not upgraded to one server: $target must be the primary. kubectl get pods, and the flusher's /readyz, say why it is not."
exit 1
