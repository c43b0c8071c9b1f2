//go:build tools

// Package tools pins Helm 4, which installs the charts.
package tools

import _ "helm.sh/helm/v4/cmd/helm"
