"""Runs in pieces: what lies elsewhere, lists of models, many workers, many images."""
