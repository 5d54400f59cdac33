"""Plumbing: files, flags, processes, memory, intervals. Nothing here is about Argos; skip it at first."""
