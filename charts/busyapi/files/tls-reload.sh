# Runs in Valkey's pod: lets Valkey read its certificate again when the files have changed, and once at the
# start. Connections stay open. A reply is printed once.
trap exit TERM
# With several servers, CA is the file that they verify each other with.
files=/etc/valkey-tls loaded= printed=
while true; do
  certificate=$(cat $files/tls.crt $CA)
  if [ "$certificate" != "$loaded" ]; then
    reply=$(REDISCLI_AUTH=$(cat /etc/tls-reload/password) valkey-cli --tls --insecure --no-auth-warning --user tls-reload \
      config set tls-cert-file $files/tls.crt tls-key-file $files/tls.key ${CA:+tls-ca-cert-file $CA} 2>&1)
    if [ "$reply" = OK ]; then loaded=$certificate printed=; echo "Valkey has read the certificate"
    elif [ "$reply" != "$printed" ]; then printed=$reply; echo "Valkey has not read the certificate: $reply"; fi
  fi
  # In the foreground, it would delay the end of the pod.
  sleep 5 &
  wait $!
done
