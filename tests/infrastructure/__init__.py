"""The templates of `examples/infrastructure`, checked with AWS's own tools; nothing here needs an account."""
