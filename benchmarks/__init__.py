"""What the library costs, as ratios against the bare driver in the same run: `python -m benchmarks`."""
