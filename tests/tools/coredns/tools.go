//go:build tools

// Package tools pins CoreDNS, the name server of the tests' node.
package tools

import _ "github.com/coredns/coredns"
