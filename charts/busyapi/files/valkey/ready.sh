# Succeeds if this server is the primary, or a replica that confirms commits. A StatefulSet stops the next pod, and a
# budget allows the next eviction, only when this one is ready again.
. /etc/valkey/tier.sh
[ "$(call "$HOSTNAME" 6379 pod ping)" = PONG ] || { echo "does not answer, or loads its data"; exit 1; }
{ read -r role; read -r primary; read -r _; read -r link; } <<END
$(call "$HOSTNAME" 6379 pod role)
END
[ "$role" != master ] || exit 0
if [ "$link" = connected ]; then
  # The flusher's record of the replicas that must confirm; none before it has decided for the first time.
  record=$(call "$HOSTNAME" 6379 pod get "$PREFIX:{0}:replicas")
  case $record in
    "" | *"\"$HOSTNAME:6379\""*) exit 0 ;;
  esac
  echo "the flusher has not yet accepted this replica"
  exit 1
fi
# A primary without a Sentinel is the only server of a release that gets more: it restarts, and lets replicas log in,
# only when the new servers are ready.
if [ "$(call "$primary" 6379 probe ping)" = PONG ] && [ -z "$(call "$primary" 26379 probe ping)" ]; then exit 0; fi
echo "does not replicate $primary: $link"
exit 1
