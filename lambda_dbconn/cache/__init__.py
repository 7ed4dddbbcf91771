"""The connection cache: which thread or task has which slot, and the whole life of the connection in a slot.

Managers and their `with` blocks import it; it imports drivers, credentials' connector, settings and events.
"""
