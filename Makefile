# Two commands, each alone in an empty checkout: `make demo` and `make test`. The rest is for daily work.
.PHONY: demo test test-slow test-soak fresh unit lint docs bench dist audit clean

PREPARE = python3 .ci/prepare.py

demo:  ## Handlers with and without the library: real runtime client, IAM tokens, a local RDS Proxy, real databases
	@$(PREPARE) environment .venv '.[demo]'
	@.venv/bin/python -m examples.demo

test:  ## Lint, typing, unit, integration and adversity tests, on every Python from 3.11 up that is here
	@$(PREPARE) servers
	@$(PREPARE) environment .venv tox tox-uv
	@.venv/bin/python .ci/test.py

test-slow:  ## What takes longer: 10,000 invocations, the tutorial, layers, AWS's tools, a browser, the distributions
	@$(PREPARE) servers
	@$(PREPARE) browser
	@$(PREPARE) environment .venv tox tox-uv
	@.venv/bin/python .ci/test.py slow

test-soak:  ## Every place of a loan struck, storms of signals, 50,000 invocations under faults: 25 minutes at most
	@$(PREPARE) servers
	@$(PREPARE) environment .venv tox tox-uv
	@.venv/bin/python .ci/test.py soak

fresh:  ## `make demo` and `make test` on bare Debian 12 and 13, each in a new root file system; FRESH="--user ada"
	@python3 .ci/fresh.py $(FRESH)

unit:  ## The quick loop: unit tests on one Python, from the working tree
	@$(PREPARE) environment .venv -e '.[all,demo,layer,local-proxy]' --group test
	@.venv/bin/python -m pytest tests/unit -q

lint:  ## Lint and typing only
	@$(PREPARE) environment .venv tox tox-uv
	@.venv/bin/python -m tox run -e lint,typing

docs:  ## The documentation's site, in site/
	@$(PREPARE) environment .venv . --group docs
	@.venv/bin/python -m tests.support.site site
	@echo site/index.html

bench:  ## What a borrow and a cold start cost, as ratios against the bare driver
	@$(PREPARE) servers
	@$(PREPARE) environment .venv -e '.[all,demo]'
	@.venv/bin/python -m benchmarks

dist:  ## What is released, in dist/ and build/: sdist, wheel and SBOM, checked; with TAG=v1.2.3 only if that is the version
	@$(PREPARE) environment .venv --group release
	@.venv/bin/python .ci/package.py $(TAG)

audit:  ## Known vulnerabilities of all that the package's extras install, from PyPI's service
	@$(PREPARE) environment .venv tox tox-uv
	@.venv/bin/python -m tox run -e audit

clean:  ## Remove what the other commands made
	rm -rf .venv .tox .cache build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
