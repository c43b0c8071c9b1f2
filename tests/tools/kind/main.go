// Command kind-config FILE reads and validates a kind configuration with kind's parser and prints the result as JSON.
//
// kind's command needs a container engine before it reads the file. Its parser is an internal package; the path of this
// module is below kind's, so that Go allows the import.
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
