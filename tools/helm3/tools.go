//go:build tools

// Package tools pins helm 3, which many people still use.
package tools

import _ "helm.sh/helm/v3/cmd/helm"
