"""Real servers, faults, and a local Lambda runtime, for testing functions that use this library."""
