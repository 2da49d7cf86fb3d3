"""Work in pieces: who runs them (`executors`)."""
