#!/bin/sh
# Makes an authority and a certificate for localhost in the folder certificates, for 90 days.
set -e
mkdir -p "$(dirname "$0")/certificates"
cd "$(dirname "$0")/certificates"
ec="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $ec -keyout ca.key -out ca.pem -days 90 -subj "/CN=Andiron sample authority" 2>/dev/null
openssl req $ec -keyout redis.key -out redis.csr -subj /CN=localhost 2>/dev/null
printf 'subjectAltName=DNS:localhost,IP:127.0.0.1\n' >redis.ext
openssl x509 -req -in redis.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out redis.pem -days 90 -extfile redis.ext 2>/dev/null
# The server in the container runs as another user.
chmod 644 redis.key
echo "RedisConnectionString=localhost:6380,password=local-key,ssl=True,sslCaFile=$PWD/ca.pem"
