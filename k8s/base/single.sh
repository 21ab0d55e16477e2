# Starts the only server. It may have been one of several: then it must have been the primary, or it lacks usages.
trap exit TERM
primary=$HOSTNAME
if [ -s /data/sentinel.conf ]; then
  while read -r _ name _ value _; do
    [ "$name" != monitor ] || primary=$value
  done < /data/sentinel.conf
fi
while [ "$primary" != "$HOSTNAME" ] && [ ! -e /data/start-as-primary ]; do
  [ -n "${said:-}" ] || echo "Not started: this server was a replica of $primary, and may lack usages. Set valkey.replicas" \
    "to the former number again. If that server is lost for good: kubectl exec $HOSTNAME -c valkey -- touch /data/start-as-primary"
  said=yes
  sleep 2 &
  wait $!
done
[ "$primary" = "$HOSTNAME" ] || rm -f /data/start-as-primary /data/sentinel.conf
exec valkey-server /etc/valkey/valkey.conf
