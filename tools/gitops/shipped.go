package gitops

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/fluxcd/pkg/apis/kustomize"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/yaml"
)

// repository is the path from this folder, where `go test` runs, to the repository's root.
const repository = "../.."

// argoKey is what Argo CD looks for in the ConfigMap argocd-cm; the name of a kind follows.
const argoKey = "resource.customizations.health." + Group + "_"

func read(path string) (string, error) {
	text, err := os.ReadFile(filepath.Join(repository, path))
	return string(text), err
}

// shippedLua is the script of each kind in the ConfigMap that users apply.
func shippedLua() (map[string]string, error) {
	text, err := read("gitops/argocd/argocd-cm.yaml")
	if err != nil {
		return nil, err
	}
	var configMap struct {
		APIVersion string            `json:"apiVersion"`
		Kind       string            `json:"kind"`
		Metadata   map[string]any    `json:"metadata"`
		Data       map[string]string `json:"data"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &configMap); err != nil {
		return nil, fmt.Errorf("argocd-cm.yaml: %w", err)
	}
	scripts := make(map[string]string, len(configMap.Data))
	for key, script := range configMap.Data {
		kind, is := strings.CutPrefix(key, argoKey)
		if !is {
			return nil, fmt.Errorf("argocd-cm.yaml: Argo CD does not look for %s", key)
		}
		scripts[kind] = script
	}
	return scripts, nil
}

// configMapOf is the ConfigMap in which each kind has the script.
func configMapOf(script string, kinds []string) string {
	var text strings.Builder
	text.WriteString("# Generated from gitops/argocd/health.lua by `make gitops-generate`. Do not edit.\n")
	text.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: argocd-cm\n  namespace: argocd\n  labels:\n")
	text.WriteString("    app.kubernetes.io/name: argocd-cm\n    app.kubernetes.io/part-of: argocd\ndata:\n")
	for _, kind := range kinds {
		text.WriteString("  " + argoKey + kind + ": |\n")
		for line := range strings.Lines(script) {
			text.WriteString(strings.TrimRight("    "+line, " \n") + "\n")
		}
	}
	return text.String()
}

// shippedFlux is the list of expressions that users give their Kustomization.
func shippedFlux() ([]kustomize.CustomHealthCheck, error) {
	text, err := read("gitops/flux/health-check-exprs.yaml")
	if err != nil {
		return nil, err
	}
	var patch struct {
		Spec struct {
			HealthCheckExprs []kustomize.CustomHealthCheck `json:"healthCheckExprs"`
		} `json:"spec"`
	}
	if err := yaml.UnmarshalStrict([]byte(text), &patch); err != nil {
		return nil, fmt.Errorf("health-check-exprs.yaml: %w", err)
	}
	for _, check := range patch.Spec.HealthCheckExprs {
		if group, _, _ := strings.Cut(check.APIVersion, "/"); group != Group {
			return nil, fmt.Errorf("health-check-exprs.yaml: %s is not of group %s", check.APIVersion, Group)
		}
	}
	return patch.Spec.HealthCheckExprs, nil
}

// Shipped are the judges with the files of this repository.
func Shipped() (*Judges, error) {
	scripts, err := shippedLua()
	if err != nil {
		return nil, err
	}
	checks, err := shippedFlux()
	if err != nil {
		return nil, err
	}
	flux, err := evaluators(checks)
	if err != nil {
		return nil, err
	}
	return &Judges{lua: scripts, flux: flux}, nil
}

// Kinds are those that the custom resource definitions bring, in the order of their names.
func Kinds() ([]string, error) {
	paths, err := filepath.Glob(filepath.Join(repository, "crds/*.yaml"))
	if err != nil {
		return nil, err
	}
	var kinds []string
	for _, path := range paths {
		crd, err := decode(path)
		if err != nil {
			return nil, err
		}
		kind, _, err := unstructured.NestedString(crd.Object, "spec", "names", "kind")
		if err != nil || kind == "" {
			return nil, fmt.Errorf("%s has no spec.names.kind: %w", path, err)
		}
		kinds = append(kinds, kind)
	}
	return kinds, nil
}

var reasonLine = regexp.MustCompile(`(?m)^    [A-Z_]+ = "([A-Za-z]+)";$`)

// Reasons is the closed list of operator/api.
func Reasons() ([]string, error) {
	text, err := read("operator/api/src/conditions.rs")
	if err != nil {
		return nil, err
	}
	var reasons []string
	for _, match := range reasonLine.FindAllStringSubmatch(text, -1) {
		reasons = append(reasons, match[1])
	}
	return reasons, nil
}

// Recorded are the objects of testdata by KIND/PHASE.
func Recorded() (map[string]*unstructured.Unstructured, error) {
	paths, err := filepath.Glob("testdata/objects/*/*.yaml")
	if err != nil {
		return nil, err
	}
	objects := make(map[string]*unstructured.Unstructured, len(paths))
	for _, path := range paths {
		object, err := decode(path)
		if err != nil {
			return nil, err
		}
		name := strings.TrimSuffix(strings.TrimPrefix(filepath.ToSlash(path), "testdata/objects/"), ".yaml")
		objects[name] = object
	}
	return objects, nil
}

// decode reads an object as a client does: whole numbers are int64.
func decode(path string) (*unstructured.Unstructured, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	json, err := yaml.YAMLToJSONStrict(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	object := &unstructured.Unstructured{}
	if err := object.UnmarshalJSON(json); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return object, nil
}
