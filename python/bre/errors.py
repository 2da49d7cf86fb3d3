"""The exceptions bre raises on purpose. Anything else is a bug."""


class BreError(Exception):
    """Base of every error bre raises on purpose."""


class InputError(BreError, ValueError):
    """The caller gave something unusable; the message names what was expected and what came.

    arguments: the names of those arguments of bre's functions that are at fault or that would help, best first, as in
    `InputError("images of two sizes", argument="resize")`. They end the text, "... (argument resize)"; the command
    line ends the same `message` with its own names for them.
    """

    def __init__(self, message: str, *, argument: str | tuple[str, ...] = ()):
        super().__init__(message)
        self.message = message
        self.arguments = (argument,) if isinstance(argument, str) else tuple(argument)

    def __str__(self) -> str:
        return with_names(self.message, "argument", self.arguments)


class BackendUnavailable(BreError, RuntimeError):
    """A backend was asked for by name and cannot be used here; the message says why."""


def with_names(message: str, what: str, names: tuple[str, ...]) -> str:
    """The message, ended by what it is about: "... (argument resize)", "... (options --mean, --std)"."""
    return f"{message} ({what}{'s' * (len(names) > 1)} {', '.join(names)})" if names else message
