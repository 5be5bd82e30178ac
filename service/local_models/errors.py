"""Errors of the embedded models before they answer; each message says what happened and what to do.

LocalModelsError
├── EngineUnusable      the extra is not installed, its weights are not the known ones, or a model does not load
├── PortTaken           another program listens on the port
├── SourceFailed        one source could not deliver a file (the next one is tried)
└── ModelUnavailable    no source could deliver it
"""


class LocalModelsError(Exception):
    """The base. Its message is for the operator and needs no traceback."""


class EngineUnusable(LocalModelsError):
    """An engine is missing or cannot load its model."""


class PortTaken(LocalModelsError):
    """Another program listens on the port."""


class SourceFailed(LocalModelsError):
    """One source could not deliver a file."""


class ModelUnavailable(LocalModelsError):
    """No source could deliver a file."""
