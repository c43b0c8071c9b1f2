//go:build tools

// Package tools pins kubeconform, which checks objects against the schemas of a version of Kubernetes.
package tools

import _ "github.com/yannh/kubeconform/cmd/kubeconform"
