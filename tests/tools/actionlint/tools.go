//go:build tools

// Package tools pins actionlint, which checks workflows.
package tools

import _ "github.com/rhysd/actionlint/cmd/actionlint"
