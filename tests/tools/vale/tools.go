//go:build tools

// Package tools pins vale, which checks the terms in documents.
package tools

import _ "github.com/vale-cli/vale/v3/cmd/vale"
