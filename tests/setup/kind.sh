#!/bin/bash
# The end-to-end tests in a kind cluster: the image built by Docker, `kind load`, helm install by the tests. Leaves nothing.
#   KIND=PROGRAM  a kind; else the one on the path, else built from its Go module into the cache
set -euo pipefail
top=$(cd "$(dirname "$0")/../.." && pwd) python=${PYTHON:-python3} name=cloacina-test-$$ image=cloacina:kind-test
case $python in /*) ;; *) python=$top/$python ;; esac
if ! command -v docker >/dev/null; then
  echo "kind-test: there is no Docker here, so nothing was tested. \`make e2e\` has the same tests on a node of its own, as root." >&2
  exit 2
fi
if ! docker info >/dev/null 2>&1; then
  echo "kind-test: the Docker daemon does not answer (docker info), so nothing was tested. \`make e2e\` has the same tests on a node of its own, as root." >&2
  exit 2
fi
kind=${KIND:-$(command -v kind || true)}
cd "$top/tests"
if [ -z "$kind" ]; then
  kind=${XDG_CACHE_HOME:-$HOME/.cache}/cloacina/bin/kind
  [ -x "$kind" ] || GOBIN=$(dirname "$kind") "$("$python" -c 'from cluster.binaries import go; print(go())')" install sigs.k8s.io/kind@v0.30.0
fi
"$python" cluster/binaries.py kubectl >/dev/null
folder=$(mktemp -d)
trap '"$kind" delete cluster --name "$name" >/dev/null 2>&1 || true; rm -rf "$folder"' EXIT
docker build --quiet --tag "$image" ${BASE:+--build-arg "BASE=$BASE"} ${WHEELS:+--build-arg "WHEELS=$WHEELS"} "$top" >/dev/null
"$kind" create cluster --name "$name" --kubeconfig "$folder/config" --wait 120s ${NODE_IMAGE:+--image "$NODE_IMAGE"}
"$kind" load docker-image "$image" --name "$name"
cd "$top"
KUBECONFIG=$folder/config CLOACINA_IMAGE=docker.io/library/$image "$python" -m pytest -q tests/cluster/story
