package gitops

import (
	"fmt"
	"slices"

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

// Look is an object as a watch told of it.
type Look struct {
	Type   string
	Object *unstructured.Unstructured
}

// History is what is known of one object from its earlier looks.
type History struct {
	observed int64
}

// complaints are the rules that a look breaks, after the earlier ones of the same object.
func (history *History) complaints(judges *Judges, reasons []string, object *unstructured.Unstructured) []string {
	var found []string
	complain := func(format string, words ...any) { found = append(found, fmt.Sprintf(format, words...)) }
	verdict, err := judges.Judge(object)
	if err != nil {
		return []string{err.Error()}
	}
	generation := object.GetGeneration()
	observed, _, _ := unstructured.NestedInt64(object.Object, "status", "observedGeneration")
	ready := condition(object, "Ready")
	if text := contradiction(verdict); text != "" {
		complain("%s", text)
	}
	if verdict.Kstatus == "Current" && (ready["status"] != "True" || ready["observedGeneration"] != generation) {
		complain("Current, and condition Ready says %v of generation %v", ready["status"], ready["observedGeneration"])
	}
	if verdict.Kstatus == "Failed" && !isTrue(object, "Stalled") {
		complain("Failed, and not Stalled")
	}
	if observed > generation {
		complain("generation %d was observed before it was there", observed)
	}
	if observed < history.observed {
		complain("generation %d was observed after %d", observed, history.observed)
	}
	history.observed = observed
	if isTrue(object, "Stalled") && isTrue(object, "Reconciling") {
		complain("Stalled and Reconciling")
	}
	for _, condition := range conditions(object) {
		if condition["type"] != "Ready" && condition["status"] != "True" {
			complain("%v is there and not True", condition["type"])
		}
		if condition["reason"] != ready["reason"] || condition["message"] != ready["message"] {
			complain("%v has other words than Ready", condition["type"])
		}
		if !slices.Contains(reasons, fmt.Sprint(condition["reason"])) {
			complain("reason %v is not in the list", condition["reason"])
		}
	}
	return found
}
