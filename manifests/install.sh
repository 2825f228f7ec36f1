#!/bin/sh
# install.sh [HELM]: print install.yaml, the chart with its defaults and its namespace. `make manifests` keeps it.
set -eu
chart=$(cd "$(dirname "$0")" && pwd)/chart
cat <<'YAML'
# Written by `make manifests` from manifests/chart; edit that. Packages live in the namespace cloacina-packages here: for
# others, and for everything that can be set, use the chart.
#   kubectl apply --server-side -f install.yaml
YAML
for namespace in cloacina-system cloacina-packages; do
  cat <<YAML
---
apiVersion: v1
kind: Namespace
metadata:
  name: $namespace
  labels:
    app.kubernetes.io/part-of: cloacina
    pod-security.kubernetes.io/enforce: restricted
YAML
done
"${1:-helm}" template cloacina "$chart" --namespace cloacina-system --skip-tests --set packageNamespaces={cloacina-packages} |
  sed -e 's/^\( *app.kubernetes.io\/managed-by:\) Helm$/\1 kubectl/' -e '/^  annotations:$/{N;/\n *helm.sh\/resource-policy: keep$/d;}'
