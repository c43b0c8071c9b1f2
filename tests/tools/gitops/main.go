// Command gitops-health SCRIPT prints how GitOps tools judge objects: Argo CD with a Lua health check, and Flux with
// kstatus. It reads a JSON list of objects from the standard input and writes a JSON list of judgements.
//
// Argo CD evaluates health checks with the same interpreter, with these libraries and this time limit, see
// util/lua/lua.go in its sources.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

const timeLimit = time.Second

type judgement struct {
	Status  string `json:"status"`
	Message string `json:"message"`
}

type judgements struct {
	ArgoCD  judgement `json:"argoCd"`
	Kstatus judgement `json:"kstatus"`
}

func main() {
	if err := run(os.Args[1]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func run(path string) error {
	script, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	var objects []map[string]any
	if err := json.NewDecoder(os.Stdin).Decode(&objects); err != nil {
		return err
	}
	results := []judgements{}
	for _, object := range objects {
		result, err := judge(string(script), object)
		if err != nil {
			return err
		}
		results = append(results, result)
	}
	return json.NewEncoder(os.Stdout).Encode(results)
}

func judge(script string, object map[string]any) (judgements, error) {
	argo, err := argoCD(script, object)
	if err != nil {
		return judgements{}, err
	}
	// Decodes again, because kstatus requires integers.
	text, err := json.Marshal(object)
	if err != nil {
		return judgements{}, err
	}
	typed := &unstructured.Unstructured{}
	if err := typed.UnmarshalJSON(text); err != nil {
		return judgements{}, err
	}
	computed, err := status.Compute(typed)
	if err != nil {
		return judgements{}, err
	}
	return judgements{argo, judgement{computed.Status.String(), computed.Message}}, nil
}

func argoCD(script string, object map[string]any) (judgement, error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{{lua.LoadLibName, lua.OpenPackage}, {lua.BaseLibName, lua.OpenBase}, {lua.TabLibName, lua.OpenTable}} {
		call := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return judgement{}, err
		}
	}
	limited, cancel := context.WithTimeout(context.Background(), timeLimit)
	defer cancel()
	state.SetContext(limited)
	state.SetGlobal("obj", value(state, object))
	if err := state.DoString(script); err != nil {
		return judgement{}, err
	}
	health, ok := state.Get(-1).(*lua.LTable)
	if !ok {
		return judgement{}, fmt.Errorf("the script returned no table")
	}
	return judgement{text(health, "status"), text(health, "message")}, nil
}

func text(table *lua.LTable, field string) string {
	if found, ok := table.RawGetString(field).(lua.LString); ok {
		return string(found)
	}
	return ""
}

// value converts decoded JSON.
func value(state *lua.LState, decoded any) lua.LValue {
	switch decoded := decoded.(type) {
	case bool:
		return lua.LBool(decoded)
	case float64:
		return lua.LNumber(decoded)
	case string:
		return lua.LString(decoded)
	case []any:
		table := state.CreateTable(len(decoded), 0)
		for _, item := range decoded {
			table.Append(value(state, item))
		}
		return table
	case map[string]any:
		table := state.CreateTable(0, len(decoded))
		for name, item := range decoded {
			table.RawSetString(name, value(state, item))
		}
		return table
	}
	return lua.LNil
}
