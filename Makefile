# falaj. `make demo` plays the story on real data, `make test` runs every test; AGENTS.md says the rest.
SHELL := /bin/bash
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-builtin-rules --no-print-directory
export CGO_ENABLED := 1

NODE := scripts/node.sh
UI := internal/ui/dist/index.html
MODULES := ui/node_modules/.package-lock.json
GO_FILES := go.mod go.sum $(shell find cmd internal demo -type f -not -path '*/testdata/*' -not -name '*_test.go' -not -path 'internal/ui/dist/*' -not -path '*/__pycache__/*')
UI_FILES := $(filter-out $(MODULES),$(shell find ui -name node_modules -prune -o -type f -not -path 'ui/dev/*' -print))

.PHONY: build ui demo test soak lint bench clean prerequisites
build: bin/falaj ## the binary with its pages

bin/falaj: $(GO_FILES) $(UI) | prerequisites
	go build -trimpath -ldflags "-s -w" -o $@ ./cmd/falaj
	@ls -l $@ | awk '{printf "$@  %.1f MiB\n", $$5 / 1048576}'

ui: $(UI) ## the pages only

$(UI): $(UI_FILES) $(MODULES)
	cd ui && ../$(NODE) npm run --silent build
	@touch $@

$(MODULES): ui/package.json ui/package-lock.json | prerequisites
	cd ui && ../$(NODE) npm ci --silent --no-audit --no-fund
	@touch $@

prerequisites:
	@scripts/prerequisites.sh

demo: build ## the whole story on real data; leaves the server up
	bin/falaj demo flights

test: $(UI) ## every test at a bounded size
	@$(NODE) scripts/test.sh

soak: $(UI) ## the same tests at full size
	@FALAJ_SOAK=1 $(NODE) scripts/test.sh

lint: $(MODULES)
	@scripts/lint.sh

bench: build ## the table of bench/README.md, measured here
	@scripts/bench.sh

clean: ## removes what was built and fetched; never .falaj, which holds data
	rm -rf bin .tools ui/node_modules
	find internal/ui/dist -mindepth 1 -not -name .gitkeep -delete
