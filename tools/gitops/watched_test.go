package gitops

import (
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
)

// watched is the environment variable with the folder of what `kubectl get --watch --output-watch-events -o json` said
// during an end-to-end run, a file for each kind. scripts/e2e sets it.
const watched = "GITOPS_WATCHED"

// byHand is the annotation of an object whose status a test of the run writes, in the operator's place.
const byHand = "e2e.provisioning.dev/status-by-hand"

// looks reads the looks of one file; the last one may be half written.
func looks(t *testing.T, path string) []Look {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var found []Look
	for decoder := json.NewDecoder(file); ; {
		var event struct {
			Type   string          `json:"type"`
			Object json.RawMessage `json:"object"`
		}
		err := decoder.Decode(&event)
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return found
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		object := &unstructured.Unstructured{}
		if err := object.UnmarshalJSON(event.Object); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		found = append(found, Look{event.Type, object})
	}
}

func TestEachStatusOfARunIsJudgedAsItStands(t *testing.T) {
	folder := os.Getenv(watched)
	if folder == "" {
		t.Skip("no run was watched: scripts/e2e sets " + watched)
	}
	judges := shipped(t)
	reasons, err := Reasons()
	if err != nil {
		t.Fatal(err)
	}
	objects, leftOut := 0, 0
	for _, kind := range kinds(t) {
		histories := make(map[string]*History)
		count := make(map[string]int)
		for _, look := range looks(t, filepath.Join(folder, kind+".json")) {
			if look.Object.GetKind() != kind {
				continue // A bookmark or an error of the watch.
			}
			if look.Object.GetAnnotations()[byHand] != "" {
				leftOut++
				continue
			}
			uid := string(look.Object.GetUID())
			if histories[uid] == nil {
				histories[uid] = &History{}
			}
			for _, complaint := range histories[uid].complaints(judges, reasons, look.Object) {
				t.Errorf("%s %s/%s at resourceVersion %s: %s", kind, look.Object.GetNamespace(), look.Object.GetName(),
					look.Object.GetResourceVersion(), complaint)
			}
			if verdict, err := judges.Judge(look.Object); err == nil {
				count[verdict.Kstatus]++
			}
		}
		objects += len(histories)
		t.Logf("%s: %d objects, looks by kstatus %v", kind, len(histories), count)
	}
	t.Logf("%d looks at statuses written by hand are left out", leftOut)
	if objects+leftOut == 0 {
		t.Error("no object was seen")
	}
}

func TestTheRulesOfARunFindWhatBreaksThem(t *testing.T) {
	judges, objects := shipped(t), recorded(t)
	reasons, err := Reasons()
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(object map[string]any){
		"nothing": func(map[string]any) {},
		"Ready of an earlier generation": func(object map[string]any) {
			ready := first(t, object)
			ready["observedGeneration"] = int64(0)
		},
		"no conditions": func(object map[string]any) { delete(object["status"].(map[string]any), "conditions") },
		"observed before it was there": func(object map[string]any) {
			object["status"].(map[string]any)["observedGeneration"] = int64(9)
		},
		"an unknown reason":       func(object map[string]any) { first(t, object)["reason"] = "Moody" },
		"a condition that is not": func(object map[string]any) { first(t, object)["type"] = "Sunny" },
	} {
		object := objects["server/ready"].DeepCopy()
		spoil(object.Object)
		found := (&History{}).complaints(judges, reasons, object)
		if (len(found) == 0) != (name == "nothing") {
			t.Errorf("%s: %v", name, found)
		}
	}
	if found := (&History{observed: 2}).complaints(judges, reasons, objects["server/ready"]); len(found) != 1 {
		t.Errorf("an observedGeneration that falls: %v", found)
	}
	for name, object := range objects {
		if found := (&History{}).complaints(judges, reasons, object); len(found) > 0 {
			t.Errorf("%s: %v", name, found)
		}
	}
}

// first is the first condition, to be spoilt.
func first(t *testing.T, object map[string]any) map[string]any {
	t.Helper()
	list, _, err := unstructured.NestedFieldNoCopy(object, "status", "conditions")
	conditions, is := list.([]any)
	if err != nil || !is || len(conditions) == 0 {
		t.Fatal("no conditions")
	}
	return conditions[0].(map[string]any)
}
