# Targets of the test cluster; included by the Makefile at the top.

.PHONY: cluster cluster-down

cluster: ## Start the test cluster; the last line printed is `export KUBECONFIG=...`
	@tests/cluster/up

cluster-down: ## Stop the test cluster and remove its state; caches stay
	@tests/cluster/down
