"""The tests, by what they need: nothing, real servers, or servers and faults."""
