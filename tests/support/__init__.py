"""What the tests stand on: fixtures, and the servers that are not part of the package."""
