"""Sentences about each module, with fakes in the place of databases and clocks."""
