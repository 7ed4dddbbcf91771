"""Lambda functions for the tests: this folder is their task root, and the real runtime client runs them."""
