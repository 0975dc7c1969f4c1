"""Activation handlers: who is active, and who is a backup.

A file says it on one machine (`file`); beyond one machine a lease in an engine that all
trust does (`etcd`, `kubernetes`, on what `_leased` and `_lease` decide). `combined` makes one
activation of several.
"""
