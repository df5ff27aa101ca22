#!/bin/bash
# The tutorial, end to end on this machine: train, register, package, push, create an app, cold start, call it.
# `make tutorial` installs what it needs and runs it. Needs docker-registry and htpasswd (Debian: docker-registry apache2-utils), and .venv with samples/requirements.txt.
set -euo pipefail
cd "$(dirname "$0")/../.."
andiron=${ANDIRON:-$PWD/.build/release/andiron}
work=${TUTORIAL_FOLDER:-$(mktemp -d)}
export ANDIRON_STATE=$work/state ANDIRON_CACHE=${ANDIRON_CACHE:-$HOME/.cache/andiron}
pids=()
cleanup() { for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done; wait 2>/dev/null || true; }
trap cleanup EXIT
say() { printf '\n\033[1m%s\033[0m\n' "$*" >&2; }
port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }

say "1. Train"
model=$work/sklearn_mnist_model.pkl
if [ -n "${TUTORIAL_MODEL:-}" ]; then cp "$TUTORIAL_MODEL" "$model"; else
  ${PYTHON:-.venv/bin/python} samples/tutorial/train.py "$model"
fi

say "2. A group, a registry with two passwords"
"$andiron" group create --name tutorial --location local --output table
registry_port=$(port)
"$andiron" acr create --name tutorialacr --resource-group tutorial --sku Basic --login-server "127.0.0.1:$registry_port" --output table
username=$("$andiron" acr credential show --name tutorialacr --query username --output tsv)
password=$("$andiron" acr credential show --name tutorialacr --query 'passwords[0].value' --output tsv)
htpasswd -Bbn -C 5 "$username" "$password" > "$work/htpasswd"
cat > "$work/registry.yml" <<YAML
version: 0.1
log: {level: warn}
storage: {filesystem: {rootdirectory: $work/registry}, delete: {enabled: true}}
http: {addr: 127.0.0.1:$registry_port, secret: tutorial}
auth: {htpasswd: {realm: tutorial, path: $work/htpasswd}}
YAML
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 & pids+=($!)
until curl -s -o /dev/null "http://127.0.0.1:$registry_port/v2/"; do sleep 0.1; done

say "3. Register and package the model, with an HTTP trigger"
"$andiron" model register --name sklearn_mnist --path "$model" --tag area=digits --output table
location=$("$andiron" package --model sklearn_mnist:1 --entry-script samples/tutorial/score.py \
  --conda-file samples/tutorial/env.yml --trigger http --auth-level anonymous \
  --registry tutorialacr --username "$username" --password "$password" --show-output)
echo "$location"
tag=$("$andiron" acr repository show-tags --repository package --name tutorialacr --query '[0]' --output tsv)

say "4. An app that runs the image"
"$andiron" appservice plan create --name tutorialplan --resource-group tutorial --sku B1 --is-linux --output table
"$andiron" storage account create --name tutorialstorage --resource-group tutorial --sku Standard_LRS --output table
"$andiron" functionapp create --resource-group tutorial --plan tutorialplan --name tutorial-app \
  --storage-account tutorialstorage --deployment-container-image-name "127.0.0.1:$registry_port/package:$tag" --output table
"$andiron" functionapp config container set --name tutorial-app --resource-group tutorial \
  --docker-custom-image-name "127.0.0.1:$registry_port/package:$tag" \
  --docker-registry-server-url "http://127.0.0.1:$registry_port" \
  --docker-registry-server-user "$username" --docker-registry-server-password "$password" --output table

say "5. Cold start: pull, verify, unpack, environment, load, warm-up"
"$andiron" start tutorial-app --port 0 --ready-file "$work/ready.json" & pids+=($!)
"$andiron" wait --ready-file "$work/ready.json" --timeout 300

say "6. Call it"
url=$(python3 -c "import json; print(json.load(open('$work/ready.json'))['url'])")
curl -sS -d @samples/tutorial/sample-input.json "$url/api/score"
echo

say "7. Clean up"
"$andiron" group delete --name tutorial --yes
