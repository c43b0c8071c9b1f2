//go:build tools

// Package tools pins Helm 3, which many still install charts with.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
