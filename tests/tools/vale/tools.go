//go:build tools

// Package tools pins vale, which checks the words of prose.
package tools

import _ "github.com/vale-cli/vale/v3/cmd/vale"
