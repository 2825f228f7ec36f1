//go:build tools

// Package helm pins Helm, for the tests of the chart, in go.mod and go.sum.
package helm

import _ "helm.sh/helm/v3/cmd/helm"
