# The chart's generated part and its checks. Included by the Makefile.

HELM ?= helm
HELM3 = $(shell tools/build --print helm3)/helm
PROMTOOL = $(shell tools/build --print promtool)/promtool
CHART := charts/provisioning
CHART_CRDS := $(CHART)/files/crds

# Every set of values that CI renders; one file per case.
CHART_CASES := $(wildcard $(CHART)/ci/*.yaml)

.PHONY: chart-generate chart-verify chart-lint chart-test chart-check

## Copies the generated CRDs into the chart: helm reads no file outside it.
chart-generate:
	mkdir -p $(CHART_CRDS)
	rm -f $(CHART_CRDS)/*.yaml
	cp crds/*.yaml $(CHART_CRDS)/

## Fails where the chart's copy is not equal to crds/.
chart-verify:
	diff -r crds $(CHART_CRDS) || { echo 'the chart ships other CRDs than crds/: run make chart-generate' >&2; exit 1; }

## Lints and renders the chart with helm 3 and helm 4, with its defaults and with every file in ci/.
chart-lint: chart-verify
	tools/build helm helm3
	@for helm in $(HELM) $(HELM3); do for values in /dev/null $(CHART_CASES); do \
		$$helm lint --strict --quiet $(CHART) --namespace provisioning-system --kube-version 1.33.0 --values $$values && \
		$$helm template provisioning $(CHART) --namespace provisioning-system --kube-version 1.33.0 --values $$values >/dev/null || exit 1; \
	done; done

## Looks at what is rendered (tools/chart), and checks and runs the alerts with promtool. The dashboard's queries are read as
## rules, with a range in place of Grafana's own variable.
chart-test:
	tools/build helm helm3 promtool
	cd tools/chart && HELM="$(HELM) $(HELM3)" GOFLAGS= GOWORK=off CGO_ENABLED=0 go test -mod=readonly -trimpath -count=1 ./...
	$(PROMTOOL) check rules --lint=all --lint-fatal $(CHART)/files/monitoring/rules.yaml
	$(PROMTOOL) test rules $(CHART)/ci/monitoring/rules.test.yaml
	jq '{groups: [{name: "dashboard", rules: [.panels[].targets[] | {record: "a:b:c", expr: (.expr | gsub("\\$$__rate_interval"; "5m"))}]}]}' \
		$(CHART)/files/monitoring/dashboard.json | $(PROMTOOL) check rules --lint=none

## Checks roles and admission policies on the cluster of KUBECONFIG, where the chart is installed.
chart-check:
	$(CHART)/ci/check.sh
