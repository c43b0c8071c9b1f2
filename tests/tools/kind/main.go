// kind-config FILE: reads a configuration as kind does, checks it as kind does, and prints what kind makes of it.
//
// kind's own command wants a container engine before it looks at the file. Its parser is internal; this module's path is
// below kind's, so that Go lets it in.
package main

import (
	"encoding/json"
	"fmt"
	"os"

	"sigs.k8s.io/kind/pkg/internal/apis/config/encoding"
)

func main() {
	config, err := encoding.Load(os.Args[1])
	if err == nil {
		err = config.Validate()
	}
	if err == nil {
		err = json.NewEncoder(os.Stdout).Encode(config)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}
