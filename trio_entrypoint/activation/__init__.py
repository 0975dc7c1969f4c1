"""Activation handlers: who is active, and who is a backup.

A file says it on one machine (`file`); beyond one machine a lease in an engine that all
trust does.
"""
