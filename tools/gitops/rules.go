package gitops

import (
	"fmt"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

func conditions(object *unstructured.Unstructured) []map[string]any {
	list, _, _ := unstructured.NestedSlice(object.Object, "status", "conditions")
	var found []map[string]any
	for _, item := range list {
		if condition, is := item.(map[string]any); is {
			found = append(found, condition)
		}
	}
	return found
}

// condition is the one of this type; nothing where there is none.
func condition(object *unstructured.Unstructured, kind string) map[string]any {
	for _, condition := range conditions(object) {
		if condition["type"] == kind {
			return condition
		}
	}
	return nil
}

func isTrue(object *unstructured.Unstructured, kind string) bool {
	return condition(object, kind)["status"] == "True"
}

// contradiction says where Argo CD or Flux take an object for something else than kstatus does; empty where they agree.
func contradiction(verdict Verdict) string {
	agrees := false
	switch verdict.Kstatus {
	case "Current":
		agrees = verdict.Flux == "Current" && (verdict.Argo == "Healthy" || verdict.Argo == "Suspended")
	case "InProgress":
		agrees = verdict.Flux == "InProgress" && (verdict.Argo == "Progressing" || verdict.Argo == "Suspended")
	case "Failed":
		agrees = verdict.Flux == "Failed" && verdict.Argo == "Degraded"
	case "Terminating":
		// A deletion that is stuck is a failure to Flux; the others know no such thing.
		agrees = verdict.Flux != "Current" && verdict.Argo == "Progressing"
	}
	if agrees {
		return ""
	}
	return fmt.Sprintf("kstatus says %s, Argo CD %s, Flux %s", verdict.Kstatus, verdict.Argo, verdict.Flux)
}
