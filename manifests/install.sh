#!/bin/sh
# install.sh [HELM]: print install.yaml, the chart with its defaults and its namespace. `make manifests` keeps it.
set -eu
chart=$(cd "$(dirname "$0")" && pwd)/chart
cat <<'YAML'
# Written by `make manifests` from manifests/chart with its default values; edit that. Packages live in the namespace
# cloacina-system here: for others, and for everything that can be set, use the chart.
#   kubectl apply --server-side -f install.yaml
apiVersion: v1
kind: Namespace
metadata:
  name: cloacina-system
  labels:
    app.kubernetes.io/part-of: cloacina
    pod-security.kubernetes.io/enforce: restricted
YAML
"${1:-helm}" template cloacina "$chart" --namespace cloacina-system --skip-tests |
  sed -e 's/^\( *app.kubernetes.io\/managed-by:\) Helm$/\1 kubectl/' -e '/^  annotations:$/{N;/\n *helm.sh\/resource-policy: keep$/d;}'
