package chart

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	monitoring "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	apps "k8s.io/api/apps/v1"
	batch "k8s.io/api/batch/v1"
	core "k8s.io/api/core/v1"
	networking "k8s.io/api/networking/v1"
	policy "k8s.io/api/policy/v1"
	rbac "k8s.io/api/rbac/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	meta "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/pod-security-admission/api"
	security "k8s.io/pod-security-admission/policy"
	"sigs.k8s.io/yaml"
)

const chart = "../../charts/provisioning"

// helms: the programs that HELM names, one for each major version. Without any nothing can be said.
func helms(t *testing.T) []Helm {
	t.Helper()
	var all []Helm
	for program := range strings.FieldsSeq(os.Getenv("HELM")) {
		all = append(all, Helm{Program: program, Chart: chart})
	}
	if len(all) < 2 {
		t.Fatal("HELM does not name helm 3 and helm 4: run make chart-test")
	}
	return all
}

// cases: the sets of values that CI renders; "" is the defaults.
func cases(t *testing.T) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(chart, "ci/*.yaml"))
	if err != nil || len(files) == 0 {
		t.Fatal("no values in ci/:", err)
	}
	return append([]string{""}, files...)
}

// objects renders the chart and reads it.
func objects(t *testing.T, helm Helm, values string, settings ...string) []Object {
	t.Helper()
	rendered, err := helm.Template(values, settings...)
	if err != nil {
		t.Fatal(err)
	}
	decoded, err := Decode(rendered)
	if err != nil {
		t.Fatal(err)
	}
	return decoded
}

// only gives the objects of one type.
func only[T Object](all []Object) []T {
	var found []T
	for _, object := range all {
		if object, ok := object.(T); ok {
			found = append(found, object)
		}
	}
	return found
}

// one gives the object of this type and name.
func one[T Object](t *testing.T, all []Object, name string) T {
	t.Helper()
	for _, object := range only[T](all) {
		if object.GetName() == name {
			return object
		}
	}
	var none T
	t.Fatalf("there is no %T named %s", none, name)
	return none
}

func replicated(t *testing.T) []Object {
	return objects(t, helms(t)[0], filepath.Join(chart, "ci/replicated.yaml"))
}

func name(object Object) string {
	kind := reflect.TypeOf(object).Elem().Name()
	return kind + " " + object.GetNamespace() + "/" + object.GetName()
}

// pods: every Pod and template of one that the chart has.
func pods(all []Object) map[string]core.PodTemplateSpec {
	found := map[string]core.PodTemplateSpec{}
	for _, object := range all {
		switch object := object.(type) {
		case *apps.Deployment:
			found[name(object)] = object.Spec.Template
		case *batch.Job:
			found[name(object)] = object.Spec.Template
		case *core.Pod:
			found[name(object)] = core.PodTemplateSpec{ObjectMeta: object.ObjectMeta, Spec: object.Spec}
		}
	}
	return found
}

func TestBothHelmsRenderTheSameAndEveryFieldIsKnown(t *testing.T) {
	for _, values := range cases(t) {
		var first []Object
		for _, helm := range helms(t) {
			found := objects(t, helm, values)
			slices.SortStableFunc(found, func(a, b Object) int { return strings.Compare(name(a), name(b)) })
			if first == nil {
				first = found
			} else if !reflect.DeepEqual(first, found) {
				t.Errorf("%q: %s renders something else than the other one", values, helm.Program)
			}
		}
		if len(first) < 20 {
			t.Errorf("%q: only %d objects", values, len(first))
		}
	}
}

func TestAFieldThatATypeDoesNotHaveIsRefused(t *testing.T) {
	document := "apiVersion: monitoring.coreos.com/v1\nkind: ServiceMonitor\nmetadata: {name: heron}\nspec:\n  selector: {}\n  endpoints: [{port: http, intervall: 30s}]\n"
	if _, err := Decode([]byte(document)); err == nil || !strings.Contains(err.Error(), "intervall") {
		t.Errorf("a misspelt field: %v", err)
	}
}

func TestEveryObjectCarriesTheRecommendedLabels(t *testing.T) {
	recommended := []string{"name", "instance", "version", "part-of", "managed-by"}
	for _, values := range cases(t) {
		for _, object := range objects(t, helms(t)[0], values) {
			for _, label := range recommended {
				if object.GetLabels()["app.kubernetes.io/"+label] == "" {
					t.Errorf("%q: %s has no label app.kubernetes.io/%s", values, name(object), label)
				}
			}
			if object.GetLabels()["helm.sh/chart"] == "" {
				t.Errorf("%q: %s does not say which chart it is from", values, name(object))
			}
		}
	}
}

func TestPodsPassTheRestrictedStandardAndHaveResources(t *testing.T) {
	evaluator, err := security.NewEvaluator(security.DefaultChecks(), nil)
	if err != nil {
		t.Fatal(err)
	}
	restricted := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, values := range cases(t) {
		found := pods(objects(t, helms(t)[0], values))
		if len(found) < 2 {
			t.Errorf("%q: Pods in %d places only", values, len(found))
		}
		for where, pod := range found {
			for _, result := range evaluator.EvaluatePod(restricted, &pod.ObjectMeta, &pod.Spec) {
				if !result.Allowed {
					t.Errorf("%q: %s: %s: %s", values, where, result.ForbiddenReason, result.ForbiddenDetail)
				}
			}
			for _, container := range pod.Spec.Containers {
				readOnly := container.SecurityContext.ReadOnlyRootFilesystem
				if readOnly == nil || !*readOnly {
					t.Errorf("%q: %s: container %s can write to its root", values, where, container.Name)
				}
				bare := strings.HasSuffix(values, "bare.yaml") && container.Name == "operator"
				if !bare && (container.Resources.Requests.Cpu().IsZero() || container.Resources.Limits.Memory().IsZero()) {
					t.Errorf("%q: %s: container %s has no resources", values, where, container.Name)
				}
			}
		}
	}
}

func TestLivenessAndReadinessAskDifferentQuestions(t *testing.T) {
	container := one[*apps.Deployment](t, objects(t, helms(t)[0], ""), "provisioning-operator").Spec.Template.Spec.Containers[0]
	live, ready := container.LivenessProbe.HTTPGet.Path, container.ReadinessProbe.HTTPGet.Path
	if live != "/healthz" || ready != "/readyz" {
		t.Errorf("liveness asks %s, readiness %s", live, ready)
	}
}

func TestWhatIsOffByDefaultIsNotRendered(t *testing.T) {
	all := objects(t, helms(t)[0], "")
	for _, object := range all {
		switch object.(type) {
		case *monitoring.ServiceMonitor, *monitoring.PrometheusRule, *policy.PodDisruptionBudget:
			t.Errorf("%s is rendered by default", name(object))
		}
		if strings.Contains(object.GetName(), "dashboard") {
			t.Errorf("%s is rendered by default", name(object))
		}
	}
}

func TestSeveralReplicasAreSpreadAndBudgeted(t *testing.T) {
	all := replicated(t)
	operator := one[*apps.Deployment](t, all, "provisioning-operator").Spec.Template
	budget := one[*policy.PodDisruptionBudget](t, all, "provisioning-operator")
	if !selects(t, budget.Spec.Selector, operator.Labels) || budget.Spec.MaxUnavailable.IntValue() != 1 {
		t.Errorf("the budget is not the operator's: %+v", budget.Spec)
	}
	spread := operator.Spec.TopologySpreadConstraints
	if len(spread) != 1 || !selects(t, spread[0].LabelSelector, operator.Labels) {
		t.Errorf("not spread: %+v", spread)
	}
}

func TestTheServiceReachesTheOperatorAndTheMonitorTheService(t *testing.T) {
	all := replicated(t)
	operator := one[*apps.Deployment](t, all, "provisioning-operator").Spec.Template
	service := one[*core.Service](t, all, "provisioning-operator")
	if !labels.SelectorFromSet(service.Spec.Selector).Matches(labels.Set(operator.Labels)) {
		t.Errorf("the Service selects %v, the operator has %v", service.Spec.Selector, operator.Labels)
	}
	monitor := one[*monitoring.ServiceMonitor](t, all, "provisioning-operator")
	if !selects(t, &monitor.Spec.Selector, service.Labels) {
		t.Errorf("the monitor selects %v, the Service has %v", monitor.Spec.Selector, service.Labels)
	}
	endpoint := monitor.Spec.Endpoints[0]
	named := func(port core.ServicePort) bool { return port.Name == endpoint.Port }
	if !slices.ContainsFunc(service.Spec.Ports, named) || endpoint.Path != "/metrics" || endpoint.Interval != "1m" {
		t.Errorf("the monitor asks %+v", endpoint)
	}
	if monitor.Labels["release"] != "prometheus" {
		t.Error("the monitor does not have the label that was asked for")
	}
}

func TestTheNetworkPolicyIsTheOperatorsAndLimitsOnlyWhatItIsTold(t *testing.T) {
	all := replicated(t)
	operator := one[*apps.Deployment](t, all, "provisioning-operator").Spec.Template
	told := one[*networking.NetworkPolicy](t, all, "provisioning-operator").Spec
	if !selects(t, &told.PodSelector, operator.Labels) {
		t.Errorf("it selects %v", told.PodSelector)
	}
	port := told.Ingress[0].Ports[0].Port.String()
	if port != operator.Spec.Containers[0].Ports[0].Name || len(told.Ingress[0].From) != 2 || len(told.Egress) != 2 {
		t.Errorf("%+v", told)
	}
	test := one[*core.Pod](t, all, "provisioning-operator-test")
	if !selects(t, told.Ingress[0].From[0].PodSelector, test.Labels) {
		t.Errorf("helm test is not let in: %+v", told.Ingress[0].From)
	}
	// By default the operator reaches what it has to, wherever servers are.
	silent := one[*networking.NetworkPolicy](t, objects(t, helms(t)[0], ""), "provisioning-operator").Spec
	if !slices.Equal(silent.PolicyTypes, []networking.PolicyType{networking.PolicyTypeIngress}) || silent.Egress != nil {
		t.Errorf("by default it limits more than what comes in: %+v", silent)
	}
}

func TestTheRulesAreThoseThatPromtoolHasTested(t *testing.T) {
	rule := one[*monitoring.PrometheusRule](t, replicated(t), "provisioning-operator")
	file, err := os.ReadFile(filepath.Join(chart, "files/monitoring/rules.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	var tested monitoring.PrometheusRuleSpec
	if err := yaml.UnmarshalStrict(file, &tested); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(rule.Spec, tested) {
		t.Error("the PrometheusRule is not files/monitoring/rules.yaml")
	}
	page, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	runs, err := os.ReadFile(filepath.Join(chart, "ci/monitoring/rules.test.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range tested.Groups[0].Rules {
		if !strings.Contains(string(page), "| `"+rule.Alert+"` |") {
			t.Errorf("docs/metrics.md does not tell of %s", rule.Alert)
		}
		if !strings.Contains(string(runs), "alertname: "+rule.Alert+"\n") {
			t.Errorf("no test fires %s", rule.Alert)
		}
	}
}

func TestTheDashboardIsWhatGrafanasSidecarLooksFor(t *testing.T) {
	dashboard := one[*core.ConfigMap](t, replicated(t), "provisioning-dashboard")
	file, err := os.ReadFile(filepath.Join(chart, "files/monitoring/dashboard.json"))
	if err != nil {
		t.Fatal(err)
	}
	if dashboard.Data["provisioning-operator.json"] != strings.TrimSpace(string(file)) {
		t.Error("the ConfigMap does not hold files/monitoring/dashboard.json")
	}
	if dashboard.Labels["grafana_dashboard"] != "1" {
		t.Errorf("labels: %v", dashboard.Labels)
	}
}

func TestAnUninstallationAsksFirstAndOnlyAsTheOperator(t *testing.T) {
	all := objects(t, helms(t)[0], "")
	check := one[*batch.Job](t, all, "provisioning-uninstall-check")
	if check.Annotations["helm.sh/hook"] != "pre-delete" || check.Annotations["helm.sh/hook-output-log-policy"] != "hook-failed" {
		t.Errorf("annotations: %v", check.Annotations)
	}
	operator := one[*apps.Deployment](t, all, "provisioning-operator").Spec.Template.Spec
	pod := check.Spec.Template.Spec
	if pod.Containers[0].Image != operator.Containers[0].Image || pod.ServiceAccountName != operator.ServiceAccountName {
		t.Errorf("it runs %s as %s", pod.Containers[0].Image, pod.ServiceAccountName)
	}
	if check.Spec.BackoffLimit == nil || *check.Spec.BackoffLimit != 0 || check.Spec.ActiveDeadlineSeconds == nil {
		t.Error("it is tried again, or never ends")
	}
	// What the CRDs define the operator may list, so the check sees every kind.
	role := one[*rbac.ClusterRole](t, all, "provisioning-operator")
	for _, crd := range only[*apiextensions.CustomResourceDefinition](all) {
		lists := func(rule rbac.PolicyRule) bool {
			return slices.Contains(rule.APIGroups, crd.Spec.Group) && slices.Contains(rule.Verbs, "list") &&
				slices.Contains(rule.Resources, crd.Spec.Names.Plural) && len(rule.ResourceNames) == 0
		}
		if !slices.ContainsFunc(role.Rules, lists) {
			t.Errorf("the operator may not list %s", crd.Spec.Names.Plural)
		}
	}
	for _, job := range only[*batch.Job](objects(t, helms(t)[0], "", "uninstallCheck.enabled=false")) {
		t.Errorf("%s is rendered though it is switched off", name(job))
	}
}

func TestCrdsStayAndAreThoseOfTheRepository(t *testing.T) {
	all := only[*apiextensions.CustomResourceDefinition](objects(t, helms(t)[0], ""))
	files, err := filepath.Glob("../../crds/*.yaml")
	if err != nil || len(files) != len(all) {
		t.Fatalf("%d CRDs in crds/, %d rendered", len(files), len(all))
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		decoded, err := Decode(text)
		if err != nil {
			t.Fatal(err)
		}
		generated := decoded[0].(*apiextensions.CustomResourceDefinition)
		rendered := one[*apiextensions.CustomResourceDefinition](t, asObjects(all), generated.Name)
		if !reflect.DeepEqual(generated.Spec, rendered.Spec) {
			t.Errorf("%s is not rendered as it was generated", generated.Name)
		}
		if rendered.Annotations["helm.sh/resource-policy"] != "keep" {
			t.Errorf("%s would go with the release, and all objects with it", rendered.Name)
		}
	}
	for _, crd := range only[*apiextensions.CustomResourceDefinition](objects(t, helms(t)[0], "", "crds.install=false")) {
		t.Errorf("%s is rendered though crds.install is false", crd.Name)
	}
}

func TestNoRoleHasAWildcardAndTheOperatorReadsNoSecret(t *testing.T) {
	all := replicated(t)
	rules := map[string][]rbac.PolicyRule{}
	for _, role := range only[*rbac.ClusterRole](all) {
		rules[role.Name] = append(rules[role.Name], role.Rules...)
	}
	for _, role := range only[*rbac.Role](all) {
		rules[role.Name] = append(rules[role.Name], role.Rules...)
	}
	if len(rules["provisioning-operator"]) < 10 {
		t.Fatalf("rules of the operator: %d", len(rules["provisioning-operator"]))
	}
	for role, rules := range rules {
		for _, rule := range rules {
			for _, words := range [][]string{rule.APIGroups, rule.Resources, rule.Verbs, rule.ResourceNames} {
				if slices.ContainsFunc(words, func(word string) bool { return strings.Contains(word, "*") }) {
					t.Errorf("%s has a wildcard: %v", role, rule)
				}
			}
			if slices.Contains(rule.Resources, "secrets") {
				for _, verb := range []string{"get", "list", "watch", "update", "patch"} {
					if slices.Contains(rule.Verbs, verb) {
						t.Errorf("%s may %s Secrets", role, verb)
					}
				}
			}
		}
	}
}

func TestRolesJoinThoseOfTheCluster(t *testing.T) {
	all := objects(t, helms(t)[0], "")
	for _, role := range []string{"view", "edit", "admin"} {
		found := one[*rbac.ClusterRole](t, all, "provisioning-"+role)
		if found.Labels["rbac.authorization.k8s.io/aggregate-to-"+role] != "true" {
			t.Errorf("%s does not join %s", found.Name, role)
		}
	}
}

func TestValuesThatAreNotListedAreRefused(t *testing.T) {
	for setting, word := range map[string]string{
		"replica=2":   "replica",
		"replicas=11": "replicas",
		"monitoring.serviceMonitor.interval=fast": "interval",
		"monitoring.dashboard.labels.a=b c":       "labels",
		"networkPolicy.from[0].nodeSelector.a=b":  "nodeSelector",
		"local.site=provisioning-system":          "local.site",
		"otlpEndpoint=https://collector":          "otlpEndpoint",
		"logFormat=xml":                           "logFormat",
		"uninstallCheck.enabled=perhaps":          "uninstallCheck",
	} {
		for _, helm := range helms(t) {
			_, err := helm.Template("", setting)
			if err == nil || !strings.Contains(err.Error(), word) {
				t.Errorf("%s: --set %q: %v", helm.Program, setting, err)
			}
		}
	}
}

func asObjects[T Object](all []T) []Object {
	var objects []Object
	for _, object := range all {
		objects = append(objects, object)
	}
	return objects
}

func selects(t *testing.T, selector *meta.LabelSelector, found map[string]string) bool {
	t.Helper()
	parsed, err := meta.LabelSelectorAsSelector(selector)
	if err != nil {
		t.Fatal(err)
	}
	return !parsed.Empty() && parsed.Matches(labels.Set(found))
}
