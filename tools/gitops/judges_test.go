package gitops

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"sigs.k8s.io/cli-utils/pkg/kstatus/status"
)

// row is one line of table.txt.
type row struct {
	reason string
	Verdict
}

// everyKind are the phases that no kind may lack.
var everyKind = []string{
	"new", "ready", "suspended", "undecodable", "status-too-new",
	"ready-for-the-generation-before", "deletion-not-seen-yet", "deleting",
}

// reasonsOf are the reasons that condition Ready of a kind can have. What every kind that runs steps
// has is in everyRun, and what undoing adds in withUndo.
var reasonsOf = map[string][]string{
	"Workspace":      {"Succeeded", "Suspended", "Undecodable", "Deleting"},
	"ProviderConfig": append([]string{"Deleting"}, everyRun...),
	"Server":         append([]string{"UnknownReference", "DependencyStalled", "ServerGone"}, withUndo...),
	"Taskserv":       append([]string{"UnknownReference", "DependencyStalled", "Cycle", "Unhealthy"}, withUndo...),
	"BatchWorkflow":  append([]string{"UnknownReference", "DependencyStalled", "Cycle", "Unhealthy", "Paused"}, withUndo...),
	"Cluster":        append([]string{"UnknownReference", "DependencyStalled", "Cycle", "Unhealthy"}, withUndo...),
}

var everyRun = []string{
	"Succeeded", "Running", "Retrying", "Waiting", "Suspended", "ApiError",
	"StepFailed", "Invalid", "NameConflict", "NoWorkspace", "Undecodable",
}

var withUndo = append([]string{"Deleting", "DeletionBlocked"}, everyRun...)

// inEventsOnly are the reasons that no condition has.
var inEventsOnly = []string{"StatusTooNew"}

func table(t *testing.T) map[string]row {
	t.Helper()
	text, err := os.ReadFile("table.txt")
	if err != nil {
		t.Fatal(err)
	}
	rows := make(map[string]row)
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) == 0 || strings.HasPrefix(words[0], "#") {
			continue
		}
		if len(words) != 5 {
			t.Fatalf("table.txt: five words a line: object, reason, kstatus, argo, flux: %s", line)
		}
		if _, twice := rows[words[0]]; twice {
			t.Fatalf("table.txt: %s is there twice", words[0])
		}
		rows[words[0]] = row{words[1], Verdict{words[2], words[3], words[4]}}
	}
	return rows
}

func recorded(t *testing.T) map[string]*unstructured.Unstructured {
	t.Helper()
	objects, err := Recorded()
	if err != nil {
		t.Fatal(err)
	}
	return objects
}

func shipped(t *testing.T) *Judges {
	t.Helper()
	judges, err := Shipped()
	if err != nil {
		t.Fatal(err)
	}
	return judges
}

func kinds(t *testing.T) []string {
	t.Helper()
	kinds, err := Kinds()
	if err != nil || len(kinds) == 0 {
		t.Fatalf("no kinds in crds/: %v", err)
	}
	return kinds
}

// unmatched are the names that only one side has, each with what it lacks.
func unmatched[Left, Right any](left map[string]Left, without string, right map[string]Right, orWithout string) []string {
	var complaints []string
	for _, name := range slices.Sorted(maps.Keys(left)) {
		if _, found := right[name]; !found {
			complaints = append(complaints, name+" "+without)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(right)) {
		if _, found := left[name]; !found {
			complaints = append(complaints, name+" "+orWithout)
		}
	}
	return complaints
}

func TestEachRecordedObjectHasARowAndEachRowAnObject(t *testing.T) {
	for _, complaint := range unmatched(recorded(t), "has no row in table.txt", table(t), "has a row and is not recorded") {
		t.Error(complaint)
	}
}

func TestAnObjectWithoutARowAndARowWithoutAnObjectAreFound(t *testing.T) {
	objects := map[string]int{"heron/new": 0, "heron/ready": 0}
	rows := map[string]row{"heron/new": {}, "curlew/new": {}}
	found := unmatched(objects, "lacks a row", rows, "lacks an object")
	if !slices.Equal(found, []string{"heron/ready lacks a row", "curlew/new lacks an object"}) {
		t.Error(found)
	}
}

func TestEachObjectIsJudgedAsTheTableSays(t *testing.T) {
	judges, objects := shipped(t), recorded(t)
	for name, want := range table(t) {
		t.Run(name, func(t *testing.T) {
			object, found := objects[name]
			if !found {
				t.Fatal("not recorded")
			}
			if reason := condition(object, "Ready")["reason"]; want.reason == "-" && reason != nil ||
				want.reason != "-" && reason != want.reason {
				t.Errorf("the reason is %v, the table says %s", reason, want.reason)
			}
			verdict, err := judges.Judge(object)
			if err != nil {
				t.Fatal(err)
			}
			if verdict != want.Verdict {
				t.Errorf("judged %v, the table says %v", verdict, want.Verdict)
			}
		})
	}
}

func TestEachKindIsRecordedInEachPhaseThatEveryKindHas(t *testing.T) {
	objects := recorded(t)
	for _, kind := range kinds(t) {
		for _, phase := range everyKind {
			object, found := objects[strings.ToLower(kind)+"/"+phase]
			if !found {
				t.Errorf("%s is not recorded when %s", kind, phase)
			} else if object.GetKind() != kind {
				t.Errorf("%s/%s is a %s", strings.ToLower(kind), phase, object.GetKind())
			}
		}
	}
}

func TestEachReasonOfTheClosedListIsRecordedAndNoOther(t *testing.T) {
	reasons, err := Reasons()
	if err != nil || len(reasons) < 10 {
		t.Fatalf("reasons of operator/api: %v: %v", reasons, err)
	}
	listed, seen := make(map[string]bool), make(map[string]bool)
	for _, reason := range reasons {
		if !slices.Contains(inEventsOnly, reason) {
			listed[reason] = true
		}
	}
	for name, object := range recorded(t) {
		for _, condition := range conditions(object) {
			reason := fmt.Sprint(condition["reason"])
			seen[reason] = true
			if !listed[reason] {
				t.Errorf("%s has reason %s, which is not in the list", name, reason)
			}
		}
	}
	for _, complaint := range unmatched(listed, "is in no recorded object", seen, "is not in the list") {
		t.Error(complaint)
	}
}

func TestEachKindIsRecordedWithEachReasonThatItCanHave(t *testing.T) {
	objects := recorded(t)
	for _, kind := range kinds(t) {
		listed, seen := make(map[string]bool), make(map[string]bool)
		for _, reason := range reasonsOf[kind] {
			listed[reason] = true
		}
		for _, object := range objects {
			if reason, found := condition(object, "Ready")["reason"]; found && object.GetKind() == kind {
				seen[fmt.Sprint(reason)] = true
			}
		}
		for _, complaint := range unmatched(listed, "is not recorded", seen, "is recorded and not in reasonsOf") {
			t.Errorf("%s: reason %s", kind, complaint)
		}
	}
}

func TestTheThreeToolsSayTheSame(t *testing.T) {
	judges := shipped(t)
	for name, object := range recorded(t) {
		verdict, err := judges.Judge(object)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if complaint := contradiction(verdict); complaint != "" {
			t.Errorf("%s: %s", name, complaint)
		}
	}
}

func TestAContradictionIsFound(t *testing.T) {
	for _, verdict := range []Verdict{
		{"Current", "Progressing", "Current"},
		{"Current", "Healthy", "InProgress"},
		{"InProgress", "Healthy", "InProgress"},
		{"InProgress", "Progressing", "Current"},
		{"Failed", "Degraded", "InProgress"},
		{"Terminating", "Healthy", "InProgress"},
		{"Terminating", "Progressing", "Current"},
		{"Unknown", "Healthy", "Current"},
	} {
		if contradiction(verdict) == "" {
			t.Errorf("%v passes", verdict)
		}
	}
}

func TestEachKindHasItsScriptAndItsExpressions(t *testing.T) {
	expected := make(map[string]bool)
	for _, kind := range kinds(t) {
		expected[kind] = true
	}
	judges := shipped(t)
	for _, complaint := range unmatched(expected, "has no script for Argo CD", judges.lua, "has a script and is no kind") {
		t.Error(complaint)
	}
	for _, complaint := range unmatched(expected, "has no expressions for Flux", judges.flux, "has expressions and is no kind") {
		t.Error(complaint)
	}
}

func TestTheConfigMapHoldsTheScriptForEachKind(t *testing.T) {
	script, err := read("gitops/argocd/health.lua")
	if err != nil {
		t.Fatal(err)
	}
	generated := configMapOf(script, kinds(t))
	path := filepath.Join(repository, "gitops/argocd/argocd-cm.yaml")
	if os.Getenv("GOLDEN") == "write" {
		if err := os.WriteFile(path, []byte(generated), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if found, err := os.ReadFile(path); err != nil || string(found) != generated {
		t.Errorf("%s is not what health.lua makes (%v): make gitops-generate, then look at the difference", path, err)
	}
	for kind, held := range shipped(t).lua {
		if held != script {
			t.Errorf("the script of %s is another than health.lua", kind)
		}
	}
}

func TestWhatArgoCDShowsIsReasonAndMessage(t *testing.T) {
	judges, objects := shipped(t), recorded(t)
	for name, want := range map[string]string{
		"server/new":                             "not looked at yet",
		"server/ready":                           "Succeeded: all steps succeeded",
		"server/ready-for-the-generation-before": "the newest spec has not been looked at yet",
		"server/api-error":                       "ApiError: the write of Server marsh/blue-server was not answered in time",
		"server/invalid":                         "Invalid: spec.providerSize: the provider has no size 'huge'; it has small",
	} {
		if _, message, err := judges.argo(objects[name]); err != nil || message != want {
			t.Errorf("%s shows %q (%v)", name, message, err)
		}
	}
}

func TestAScriptHasNoMoreThanArgoCDGivesIt(t *testing.T) {
	for script, words := range map[string]string{
		`return {status = string.upper("healthy")}`: "non-table",
		`io.open("table.txt"); return {}`:           "non-table",
		`while true do end`:                         "deadline",
		`return "Healthy"`:                          "no table",
		`return {status = "Fine"}`:                  "does not know",
	} {
		if _, _, err := runLua(script, map[string]any{}); err == nil || !strings.Contains(err.Error(), words) {
			t.Errorf("%s: %v", script, err)
		}
	}
}

func TestAnObjectThatSaysNothingIsHealthyToNobody(t *testing.T) {
	judges := shipped(t)
	silent := recorded(t)["server/ready"].DeepCopy()
	silent.Object["status"] = map[string]any{"incarnation": int64(1)}
	if health, _, err := judges.argo(silent); err != nil || health != "Progressing" {
		t.Errorf("Argo CD says %s (%v)", health, err)
	}
	if result, err := judges.flux["Server"].Evaluate(t.Context(), silent); err != nil || result.Status != "InProgress" {
		t.Errorf("Flux says %v (%v)", result, err)
	}
	// kstatus takes it for done, and a status that is missing too: hence the default in the schema.
	delete(silent.Object, "status")
	if result, err := status.Compute(silent); err != nil || result.Status != status.CurrentStatus {
		t.Errorf("kstatus says %v (%v)", result, err)
	}
	if health, _, err := judges.argo(silent); err != nil || health != "Progressing" {
		t.Errorf("Argo CD says %s (%v)", health, err)
	}
}
