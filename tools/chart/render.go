// Package chart looks at what the Helm chart renders: `make chart-test`.
package chart

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"
)

// Object is anything that Kubernetes keeps.
type Object interface {
	meta.Object
	runtime.Object
}

// Kubernetes is the oldest release that the chart promises to run on.
const Kubernetes = "1.33.0"

// Namespace that the chart is rendered for.
const Namespace = "provisioning-system"

// Helm is one helm program.
type Helm struct {
	Program string
	Chart   string
}

// Template renders the chart with a file of values and more settings, `NAME=VALUE`.
func (h Helm) Template(values string, settings ...string) ([]byte, error) {
	arguments := []string{"template", "provisioning", h.Chart, "--namespace", Namespace, "--kube-version", Kubernetes}
	if values != "" {
		arguments = append(arguments, "--values", values)
	}
	for _, setting := range settings {
		arguments = append(arguments, "--set", setting)
	}
	var stderr bytes.Buffer
	command := exec.Command(h.Program, arguments...)
	command.Stderr = &stderr
	// Nothing of the user's own helm.
	command.Env = append(os.Environ(), "HELM_CONFIG_HOME=/nonexistent", "HELM_DATA_HOME=/nonexistent")
	rendered, err := command.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w: %s", strings.Join(arguments, " "), err, stderr.String())
	}
	return rendered, nil
}

// Decode reads every document as the type that it says it is, and refuses what that type does not have: a field in the
// wrong place, a misspelt one, a value of another type.
func Decode(rendered []byte) ([]Object, error) {
	known := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{scheme.AddToScheme, apiextensions.AddToScheme, monitoring.AddToScheme} {
		if err := add(known); err != nil {
			return nil, err
		}
	}
	decoder := serializer.NewCodecFactory(known, serializer.EnableStrict).UniversalDeserializer()
	documents := yaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(rendered)))
	var objects []Object
	for {
		document, err := documents.Read()
		if errors.Is(err, io.EOF) {
			return objects, nil
		}
		if err != nil {
			return nil, err
		}
		if !hasContent(document) {
			continue
		}
		decoded, _, err := decoder.Decode(document, nil, nil)
		if err != nil {
			return nil, fmt.Errorf("%w in\n%s", err, document)
		}
		object, ok := decoded.(Object)
		if !ok {
			return nil, fmt.Errorf("%T is no object", decoded)
		}
		objects = append(objects, object)
	}
}

// hasContent: a document is not only comments.
func hasContent(document []byte) bool {
	for line := range strings.Lines(string(document)) {
		line = strings.TrimSpace(line)
		if line != "" && line != "---" && !strings.HasPrefix(line, "#") {
			return true
		}
	}
	return false
}
