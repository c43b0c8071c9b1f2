//go:build tools

// Package tools pins h2spec, which tests a server of HTTP/2 against the RFCs.
package tools

import _ "github.com/summerwind/h2spec/cmd/h2spec"
