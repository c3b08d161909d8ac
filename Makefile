# Converge. `make help` lists what there is; everything runs from the root of a fresh clone.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# What /healthz and converge_build_info tell; compose passes it on to the images.
export VERSION ?= $(shell git describe --always --dirty --tags 2>/dev/null)
LDFLAGS := -ldflags "-X github.com/converge-dev/converge/pkg/app.version=$(VERSION)"

PACKAGES := ./pkg/... ./testkit/... ./migrations/... ./services/... ./lab/...
ARGS ?=

# Tests. Their servers are containers where Docker answers and embedded ones elsewhere; CONVERGE_TEST_SERVERS=docker or
# =embedded decides. The test kits end their containers themselves, so testcontainers' own reaper is not needed.
TEST_FLAGS ?=
TEST_TIMEOUT ?= 45m
export CONVERGE_TEST_SERVERS ?=
export CONVERGE_TEST_KEEPER ?= $(CURDIR)/bin/keeper
export TESTCONTAINERS_RYUK_DISABLED ?= true
# Packages tested at once: each may start servers of its own, so no more than four.
TEST_PARALLEL ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); [ "$$n" -lt 4 ] && echo "$$n" || echo 4)
FUZZ_TIME ?= 20s
SEEDS ?= 2000

GOLANGCI_VERSION := v2.15.0
GOLANGCI := .cache/golangci-lint-$(GOLANGCI_VERSION)/golangci-lint

##@ Run
run: go ## Run everything in one process on embedded servers (no Docker needed)
	@CGO_ENABLED=0 go build -trimpath $(LDFLAGS) -o bin/ ./services/cmd/stack && exec bin/stack $(ARGS)

up: docker ## Build the images, start the compose stack and wait until it is healthy
	docker compose up --build --detach --wait --remove-orphans
	docker compose ps

down: docker ## Stop the compose stack; its data stay (ARGS=--volumes forgets them)
	docker compose --profile '*' down --remove-orphans $(ARGS)

logs: docker ## Follow the compose stack's logs (ARGS=order: one service's)
	docker compose logs --follow --tail 100 $(ARGS)

clean: ## Forget the state of `make run`, reports, and what was built
	rm -rf .data bin coverage.out

##@ Check
test: go ## Run all tests with the race detector, on containers where Docker answers
	@case "$$CONVERGE_TEST_SERVERS" in \
	  docker|embedded) echo "Tests run on $$CONVERGE_TEST_SERVERS servers, as CONVERGE_TEST_SERVERS says." ;; \
	  *) if docker info >/dev/null 2>&1; then echo "Docker answers: tests run on PostgreSQL and Apache Kafka in containers."; \
	     else echo "No Docker here: tests run on embedded servers."; fi ;; \
	esac
	@[ "$$(go env CGO_ENABLED)" = 1 ] || echo "No C compiler here: tests run without the race detector."
	@CGO_ENABLED=0 go build -trimpath -o bin/keeper ./testkit/cmd/keeper
	go test $$([ "$$(go env CGO_ENABLED)" = 1 ] && echo -race) -count=1 -timeout $(TEST_TIMEOUT) -p $(TEST_PARALLEL) $(TEST_FLAGS) $(PACKAGES)

lint: go $(GOLANGCI) ## Run go vet and the linters of .golangci.yml
	go vet $(PACKAGES)
	$(GOLANGCI) run $(PACKAGES)

verify: go ## Check that documents and dashboards say what the code does
	@go run ./services/cmd/converge graph -check README.md
	@for m in $$(grep -rhoE '\b(converge|http)_[a-z_]+' deploy/prometheus/alerts.yml deploy/grafana/dashboards | sed -E 's/_(bucket|sum|count)$$//' | sort -u); do \
	  grep -rqF "\"$$m\"" --include='*.go' pkg services || { echo "deploy/ asks for the metric $$m, which no code has." >&2; exit 1; }; \
	done
	@echo "README's graph and the metrics that deploy/ asks for are the code's."

fuzz: go ## Run every fuzz target for a short while (FUZZ_TIME=20s)
	@grep -rn --include='*_test.go' -E '^func Fuzz' pkg services lab | sed -E 's|/[^/]*_test\.go:[0-9]+:func (Fuzz[A-Za-z0-9_]*).*| \1|' | sort -u | \
	while read -r dir target; do \
	  echo "== $$dir $$target"; go test -run='^$$' -fuzz="^$$target\$$" -fuzztime=$(FUZZ_TIME) "./$$dir" </dev/null || exit 1; \
	done

cover: go ## Run all tests and print the coverage of every function
	@CGO_ENABLED=0 go build -trimpath -o bin/keeper ./testkit/cmd/keeper
	go test -count=1 -timeout $(TEST_TIMEOUT) -p $(TEST_PARALLEL) -coverprofile=coverage.out \
	  -coverpkg=github.com/converge-dev/converge/... $(PACKAGES)
	go tool cover -func=coverage.out

contract: build ## Hold every answer of every service against its OpenAPI description, with schemathesis (needs Python)
	deploy/contract/run $(ARGS)

bench: go docker ## Measure against real Kafka and PostgreSQL (ARGS=-full: everything, 20 minutes; ARGS=-smoke: that it works)
	go run ./lab/cmd/bench $(ARGS)

soak: go docker ## Break a system of its own for a while and check that nothing was lost (ARGS="-duration 1h -seed 1")
	go run ./lab/cmd/soak $(ARGS)

simulate: go ## Try random histories of the order saga, with all that can go wrong between its services (SEEDS=100000)
	CONVERGE_SIMULATE_SEEDS=$(SEEDS) go test -count=1 -v -timeout 24h -run '^TestOrdersConverge$$' ./lab/simulate

compare: go docker ## Hold the system against a synchronous design, all well and not (ARGS=-smoke: that it works)
	go run ./lab/cmd/compare $(ARGS)

##@ Build
build: go ## Compile every binary into bin/
	CGO_ENABLED=0 go build -trimpath $(LDFLAGS) -o bin/ ./services/cmd/... ./lab/cmd/... ./testkit/cmd/...

fmt: go $(GOLANGCI) ## Format all Go code
	$(GOLANGCI) fmt pkg testkit migrations services lab

help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^##@/ {printf "\n%s\n", substr($$0, 5)} /^[a-z]+:.*## / {printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo

$(GOLANGCI):
	GOBIN=$(abspath $(@D)) go install github.com/golangci/golangci-lint/v2/cmd/golangci-lint@$(GOLANGCI_VERSION)

go:
	@command -v go >/dev/null 2>&1 || { echo "Go is missing. Converge needs Go 1.26 or newer: https://go.dev/dl/" >&2; exit 1; }
	@go list -m >/dev/null || { echo "This Go is too old. Converge needs Go 1.26 or newer: https://go.dev/dl/" >&2; exit 1; }

docker:
	@docker compose version >/dev/null 2>&1 || { echo "Docker with compose v2 is missing: https://docs.docker.com/engine/install/ (make run needs neither)" >&2; exit 1; }
	@docker info >/dev/null 2>&1 || { echo "The Docker engine does not answer: docker info says why (make run works without it)" >&2; exit 1; }

.PHONY: run up down logs clean test lint verify fuzz cover contract bench soak simulate compare build fmt help go docker
