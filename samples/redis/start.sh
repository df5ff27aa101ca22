#!/bin/sh
# The Redis of compose.yaml without a container: Debian's redis-server with TLS on 6380. Ctrl-C ends it.
set -e
folder=$(cd "$(dirname "$0")" && pwd)
[ -f "$folder/certificates/redis.pem" ] || "$folder/certificates.sh"
exec redis-server --bind 127.0.0.1 --port "${PLAIN_PORT:-6379}" --tls-port "${TLS_PORT:-6380}" \
  --tls-cert-file "$folder/certificates/redis.pem" --tls-key-file "$folder/certificates/redis.key" \
  --tls-ca-cert-file "$folder/certificates/ca.pem" --tls-auth-clients no \
  --requirepass local-key --maxmemory 256mb --maxmemory-policy allkeys-lru --save ""
