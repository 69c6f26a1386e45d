# Pneumatic: `make run` shows it, `make test` proves it.

NEED   := deploy/tools/need.sh
CARGO  ?= cargo
VENV   := target/venv
BUNDLE := gateway/assets/node_modules/.package-lock.json
CLIENTS := gateway/tests/js/node_modules/.package-lock.json
NPM_CI := npm ci --no-audit --no-fund --loglevel=error
PLAYS := behaviour::write_what_each_engine_does

.DEFAULT_GOAL := help
.PHONY: help run test check compatibility chaos drops storm slow-readers bench-engines official-suites fuzz bundle clean

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Start the demo board, or with CONFIG=path a gateway of your own
	@$(NEED) cc cargo node npm
	@$(MAKE) --no-print-directory bundle
	@echo "Building the gateway; the first build takes some minutes."
	@$(CARGO) build --profile demo --bin gateway
ifdef CONFIG
	@exec target/demo/gateway serve --config '$(CONFIG)'
else
	@echo "Open http://127.0.0.1:3000/ in two windows. Ctrl-C stops it."
	@exec target/demo/gateway
endif

test: ## Install what is missing, then run every test
	@$(NEED) cc cargo node npm python3 python3-venv redis-server redis-cli haproxy chromium fonts-cjk fonts-emoji
	@$(MAKE) --no-print-directory bundle $(CLIENTS) $(VENV)/.ready
	$(CARGO) test --workspace

check: ## Formatting and lints
	@$(NEED) cc cargo node npm
	@$(MAKE) --no-print-directory bundle
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets -- -D warnings

compatibility: ## Play every client on every engine, and write docs/compatibility.md
	@$(NEED) cc cargo node npm
	@$(MAKE) --no-print-directory bundle $(CLIENTS)
	$(CARGO) test --package gateway --test it -- --ignored --exact $(PLAYS)
	@echo "docs/compatibility.md has every cell, each as it is expected."

chaos: ## Break a real cluster for MINUTES=3, by SEED=…, and compare every client with Redis
	@$(NEED) cc cargo node npm redis-server
	@$(MAKE) --no-print-directory bundle $(CLIENTS)
	@echo "Building the gateway and the harness; the first build takes some minutes."
	@$(CARGO) build --release --bin gateway --bin chaos
	@target/release/chaos --duration $(or $(MINUTES),3)m $(if $(SEED),--seed $(SEED)) $(ARGS)

drops: ## Cut N clients again and again for SECONDS, and say what each one missed
	@$(NEED) cc cargo node npm redis-server
	@$(MAKE) --no-print-directory bundle
	$(CARGO) build --release --bin gateway --bin drops
	target/release/drops --clients $(or $(N),1000) --seconds $(or $(SECONDS),60) $(ARGS)

storm: ## Kill a gateway under N clients, and count how often each feed is read
	@$(NEED) cc cargo node npm redis-server
	@$(MAKE) --no-print-directory bundle
	$(CARGO) build --release --bin gateway --bin storm
	target/release/storm --clients $(or $(N),5000) $(ARGS)

slow-readers: ## Measure whether fast clients notice slow ones; ARGS='--fast 500' and the like
	@$(NEED) cc cargo node npm
	@$(MAKE) --no-print-directory bundle
	@$(CARGO) build --release --bin gateway
	@$(CARGO) run --release --package loadtest --example slow_readers -- $(ARGS)

bench-engines: ## Measure both engines side by side; ARGS='--connections 500' and the like
	@$(NEED) cc cargo node npm redis-server
	@$(MAKE) --no-print-directory bundle
	@echo "Building the gateway and the benchmark; the first build takes some minutes."
	@$(CARGO) build --release --bin gateway --bin engines
	@target/release/engines $(or $(ARGS),--write docs/performance.md)

official-suites: ## Run the socket.io project's protocol suites, which are in SUITES=folder
	@$(NEED) cc cargo node npm
	@test -n '$(SUITES)' || { echo "make official-suites SUITES=folder: where are the suites?" >&2; exit 2; }
	@$(CARGO) build --quiet --package gateway --example echo
	@deploy/tools/official-suites.sh '$(SUITES)' target/debug/examples/echo

fuzz: ## Feed each decoder what no client sends, for SECONDS=120 each, and print what was reached
	@$(NEED) c++ cargo llvm
	@gateway/fuzz/run.sh $(or $(SECONDS),120)

bundle: $(BUNDLE) ## Fetch the browser bundles that the gateway serves

$(BUNDLE): gateway/assets/package.json gateway/assets/package-lock.json
	@echo "Fetching the socket.io browser bundles …"
	@cd gateway/assets && $(NPM_CI)
	@touch $@

$(CLIENTS): gateway/tests/js/package.json gateway/tests/js/package-lock.json
	@echo "Fetching the test clients …"
	@cd gateway/tests/js && $(NPM_CI)
	@touch $@

$(VENV)/.ready: gateway/tests/py/requirements.txt
	@echo "Making the Python environment …"
	@python3 -m venv --clear $(VENV)
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check --requirement $<
	@touch $@

clean: ## Take away everything that was built, fetched or started
	@deploy/local/down --wipe
	$(CARGO) clean
	rm -rf gateway/assets/node_modules gateway/tests/js/node_modules
