//go:build tools

// Package tools pins versitygw, an S3 server on a folder.
package tools

import _ "github.com/versity/versitygw/cmd/versitygw"
