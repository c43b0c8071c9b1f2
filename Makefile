# Each target installs missing packages with apt. On systems without apt it prints their names.
.PHONY: run test faults unit e2e test-long lint generate docs bench bench-scale load setup kube-tools image

# Without the Kubernetes commands, and less optimised than a release: both save time until the first event.
local := cargo run --profile local --no-default-features --features dev-servers -p pulse --

run: setup ## All roles in one process, with a private PostgreSQL and Redis; ARGS are flags of `pulse dev`
	$(local) dev $(ARGS)

test: setup kube-tools ## All tests, against real PostgreSQL, Redis and Kubernetes
	scripts/setup browser
	cargo build --workspace --all-targets
	cargo test --workspace

e2e: setup kube-tools ## Installs the charts and the image on a real cluster; tests use, upgrade, failures and removal
	cargo test -p pulse-tests --features e2e --test e2e -- --nocapture --test-threads=1

test-long: e2e ## Tests too long for every change: e2e, the dev loop, faults that last minutes, crashes after each write, fuzzing
	cargo test -p pulse-tests --features long --test archive --test console_load --test dev_loop --test faults --test front --test indexes --test isolation --test lists --test long --test operator --test operator_crashes --test operator_node --test operator_scale_out --test previous --test scale --test soak --test tokens -- --nocapture
	scripts/fuzz

faults: ## The tests of docs/reference/faults.md under load, with their recovery times
	scripts/setup build
	cargo test -p pulse-tests --test faults --test ledger --test postgresql_failover --test redis_nodes --test restore -- --nocapture --test-threads 1

unit: ## The tests that need no server
	scripts/setup build
	cargo test --workspace --exclude pulse-tests --lib --bins

# Besides all features, clippy checks the builds of `make run` and of the image.
lint: ## The linters of CI
	scripts/setup build
	cargo fmt --all --check
	cargo metadata --locked --format-version 1 --manifest-path fuzz/Cargo.toml >/dev/null
	cargo clippy --workspace --all-targets --features pulse-tests/long,pulse-tests/e2e -- -D warnings
	cargo clippy -p pulse --no-default-features --features dev-servers -- -D warnings
	cargo clippy -p pulse --no-default-features --features archive,kubernetes,jemalloc -- -D warnings
	scripts/deny
	scripts/words

generate: setup ## Generated files: .sqlx, tables and pages of docs/, charts and manifests
	scripts/prepare-queries
	scripts/reference
	scripts/scaling-table
	scripts/manifests

docs: ## The documentation as a site, in target/book
	scripts/setup docs
	scripts/book --check

bench: setup ## Compares with the reference stack; writes bench/RESULTS.md
	bench/run

bench-scale: setup ## What more load, workers and APIs cost: writes the tables of docs/scale.md
	bench/run scale

load: setup ## One minute of load on `make run`, which prints PULSE_TOKEN
	$(local) load --token "$(PULSE_TOKEN)" --rate 1000 --duration 60s

kube-tools: ## Kubernetes, Helm and other programs for the tests; the first build takes minutes
	scripts/setup node
	@scripts/kube-tools >/dev/null

image: ## The release image; writes target/image
	scripts/setup node
	scripts/image

setup:
	@scripts/setup
