# The chart's generated part and its checks. Included by the Makefile.

HELM ?= helm
CHART := charts/provisioning
CHART_CRDS := $(CHART)/files/crds

# Every set of values that CI renders; one file per case.
CHART_CASES := $(wildcard $(CHART)/ci/*.yaml)

.PHONY: chart-generate chart-verify chart-lint chart-check

## Copies the generated CRDs into the chart: helm reads no file outside it.
chart-generate:
	mkdir -p $(CHART_CRDS)
	rm -f $(CHART_CRDS)/*.yaml
	cp crds/*.yaml $(CHART_CRDS)/

## Fails where the chart's copy is not equal to crds/.
chart-verify:
	diff -r crds $(CHART_CRDS) || { echo 'the chart ships other CRDs than crds/: run make chart-generate' >&2; exit 1; }

## Lints and renders the chart with its defaults and with every file in ci/.
chart-lint: chart-verify
	@for values in /dev/null $(CHART_CASES); do \
		$(HELM) lint --strict --quiet $(CHART) --namespace provisioning-system --kube-version 1.33.0 --values $$values && \
		$(HELM) template provisioning $(CHART) --namespace provisioning-system --kube-version 1.33.0 --values $$values >/dev/null || exit 1; \
	done

## Checks roles and admission policies on the cluster of KUBECONFIG, where the chart is installed.
chart-check:
	$(CHART)/ci/check.sh
