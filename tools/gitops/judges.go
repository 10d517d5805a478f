// Package gitops asks the tools that wait for objects of provisioning.dev how they stand: kstatus itself, Argo CD with
// the Lua of gitops/argocd, Flux with the CEL of gitops/flux. Its tests hold their answers against a table.
package gitops

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/fluxcd/pkg/apis/kustomize"
	"github.com/fluxcd/pkg/runtime/cel"
	lua "github.com/yuin/gopher-lua"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// Group is the API group whose objects are judged.
const Group = "provisioning.dev"

// luaDeadline is how long Argo CD lets a health script run.
const luaDeadline = time.Second

// Verdict is how an object stands in the eyes of each tool.
type Verdict struct {
	Kstatus string
	Argo    string
	Flux    string
}

// Judges are the three tools with what this repository ships for them.
type Judges struct {
	// lua holds the health script of each kind.
	lua map[string]string
	// flux holds the expressions of each kind.
	flux map[string]*cel.StatusEvaluator
}

// Judge asks all three.
func (judges *Judges) Judge(object *unstructured.Unstructured) (Verdict, error) {
	computed, err := status.Compute(object)
	if err != nil {
		return Verdict{}, fmt.Errorf("kstatus: %w", err)
	}
	health, _, err := judges.argo(object)
	if err != nil {
		return Verdict{}, fmt.Errorf("argo: %w", err)
	}
	evaluator, found := judges.flux[object.GetKind()]
	if !found {
		return Verdict{}, fmt.Errorf("flux: no expressions for kind %s", object.GetKind())
	}
	evaluated, err := evaluator.Evaluate(context.Background(), object)
	if err != nil {
		return Verdict{}, fmt.Errorf("flux: %w", err)
	}
	return Verdict{computed.Status.String(), health, evaluated.Status.String()}, nil
}

// argo does as Argo CD: what is being deleted is Progressing, and its script is not asked.
func (judges *Judges) argo(object *unstructured.Unstructured) (health, message string, err error) {
	if object.GetDeletionTimestamp() != nil {
		return "Progressing", "Pending deletion", nil
	}
	script, found := judges.lua[object.GetKind()]
	if !found {
		return "", "", fmt.Errorf("no script for kind %s", object.GetKind())
	}
	return runLua(script, object.Object)
}

// runLua runs a health script with no more than Argo CD gives it: the libraries package, base and table (its cut-down os
// is left out), `obj`, and a second.
func runLua(script string, object map[string]any) (health, message string, err error) {
	state := lua.NewState(lua.Options{SkipOpenLibs: true})
	defer state.Close()
	for _, library := range []struct {
		name string
		open lua.LGFunction
	}{
		{lua.LoadLibName, lua.OpenPackage},
		{lua.BaseLibName, lua.OpenBase},
		{lua.TabLibName, lua.OpenTable},
	} {
		call := lua.P{Fn: state.NewFunction(library.open), NRet: 0, Protect: true}
		if err := state.CallByParam(call, lua.LString(library.name)); err != nil {
			return "", "", fmt.Errorf("open library %s: %w", library.name, err)
		}
	}
	deadline, cancel := context.WithTimeout(context.Background(), luaDeadline)
	defer cancel()
	state.SetContext(deadline)
	value, err := luaValue(state, object)
	if err != nil {
		return "", "", err
	}
	state.SetGlobal("obj", value)
	if err := state.DoString(script); err != nil {
		return "", "", err
	}
	answer, is := state.Get(-1).(*lua.LTable)
	if !is {
		return "", "", errors.New("the script returned no table")
	}
	health = lua.LVAsString(answer.RawGetString("status"))
	switch health {
	case "Healthy", "Progressing", "Degraded", "Suspended", "Missing", "Unknown":
		return health, lua.LVAsString(answer.RawGetString("message")), nil
	}
	return "", "", fmt.Errorf("the script returned status %q, which Argo CD does not know", health)
}

// luaValue is JSON as Lua sees it.
func luaValue(state *lua.LState, value any) (lua.LValue, error) {
	switch value := value.(type) {
	case nil:
		return lua.LNil, nil
	case bool:
		return lua.LBool(value), nil
	case int64:
		return lua.LNumber(value), nil
	case float64:
		return lua.LNumber(value), nil
	case string:
		return lua.LString(value), nil
	case []any:
		table := state.CreateTable(len(value), 0)
		for _, item := range value {
			item, err := luaValue(state, item)
			if err != nil {
				return nil, err
			}
			table.Append(item)
		}
		return table, nil
	case map[string]any:
		table := state.CreateTable(0, len(value))
		for name, item := range value {
			item, err := luaValue(state, item)
			if err != nil {
				return nil, err
			}
			table.RawSetString(name, item)
		}
		return table, nil
	}
	return nil, fmt.Errorf("%T is no JSON", value)
}

// evaluators compiles what a Flux Kustomization has under spec.healthCheckExprs, as Flux does.
func evaluators(checks []kustomize.CustomHealthCheck) (map[string]*cel.StatusEvaluator, error) {
	// Flux refuses a list that names a kind twice.
	if _, err := cel.NewStatusReader(checks); err != nil {
		return nil, err
	}
	found := make(map[string]*cel.StatusEvaluator, len(checks))
	for _, check := range checks {
		evaluator, err := cel.NewStatusEvaluator(&check.HealthCheckExpressions)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", check.Kind, err)
		}
		found[check.Kind] = evaluator
	}
	return found, nil
}
