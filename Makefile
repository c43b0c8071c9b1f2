# Each recipe installs what it needs where there is apt; elsewhere it says what is missing.
.PHONY: run test e2e test-long lint generate bench load setup kube-tools image

run: setup ## Everything in one process, over a private PostgreSQL and Redis
	cargo run --release -p pulse -- dev

test: setup kube-tools ## Every test, against real PostgreSQL, Redis and Kubernetes
	cargo build --workspace --all-targets
	cargo test --workspace

e2e: setup kube-tools ## Installed by Helm on a real cluster, with our image; used, upgraded, broken and removed
	cargo test -p pulse-tests --features e2e --test e2e -- --nocapture --test-threads=1

test-long: e2e ## What takes too long for every change: e2e, the dev loop, faults that last minutes, crashes after each write
	cargo test -p pulse-tests --features long --test long --test operator_crashes --test operator_faults --test dev_loop -- --nocapture

lint: setup ## What CI refuses
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --features pulse-tests/long,pulse-tests/e2e -- -D warnings
	scripts/deny

generate: setup ## Statements (.sqlx), the reference of all flags, charts and manifests
	scripts/prepare-queries
	scripts/reference
	scripts/manifests

bench: setup ## The comparison with the reference stack, into bench/RESULTS.md
	bench/run

load: setup ## One minute of load on `make run`; TOKEN is in its banner
	cargo run --release -p pulse -- load --token "$(TOKEN)" --rate 1000 --duration 60s

kube-tools: ## Kubernetes' own programs for the tests, Helm and the like: minutes once, then nothing
	scripts/setup node
	@scripts/kube-tools >/dev/null

image: ## The container image of the release, into target/image
	scripts/setup node
	scripts/image

setup:
	@scripts/setup
