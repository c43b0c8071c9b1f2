//go:build tools

// Package tools pins the modules whose CRDs the charts' objects are checked against. Nothing of them is built.
package tools

import (
	_ "github.com/prometheus-operator/prometheus-operator/pkg/versionutil"
	_ "sigs.k8s.io/gateway-api/pkg/consts"
)
