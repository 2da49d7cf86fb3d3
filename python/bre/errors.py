"""The exceptions bre raises on purpose. Anything else is a bug."""


class BreError(Exception):
    """Base of every error bre raises on purpose."""


class InputError(BreError, ValueError):
    """The caller gave something unusable; the message names what was expected and what came."""


class BackendUnavailable(BreError, RuntimeError):
    """A backend was asked for by name and cannot be used here; the message says why."""
