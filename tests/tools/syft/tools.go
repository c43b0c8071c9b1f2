//go:build tools

// Package tools pins syft, which lists what an image contains.
package tools

import _ "github.com/anchore/syft/cmd/syft"
