"""What the peers do in the situations of a Lambda function, tried: `python -m benchmarks.peers`, which asks PyPI.

`handlers` is each peer as its own documentation has it, in an environment of its own; `trials` brings about the
situations, with a real PostgreSQL, and says what became of the invocations. `docs/explanation/comparison.md` has the
results, and a test compares them.
"""
