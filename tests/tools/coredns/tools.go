//go:build tools

// Package tools pins CoreDNS, the DNS server of the tests' node.
package tools

import _ "github.com/coredns/coredns"
