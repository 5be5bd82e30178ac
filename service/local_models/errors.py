"""What can go wrong before the embedded models answer; each message says what happened and what to do.

LocalModelsError
├── EngineUnusable      the extra is not installed, its weights are not ours, or a model does not load
├── PortTaken           somebody else listens where we should
├── SourceFailed        one source could not deliver a file (the next one is tried)
└── ModelUnavailable    no source could
"""


class LocalModelsError(Exception):
    """Something the operator can act on; its text is one message for them, without a traceback."""


class EngineUnusable(LocalModelsError):
    pass


class PortTaken(LocalModelsError):
    pass


class SourceFailed(LocalModelsError):
    pass


class ModelUnavailable(LocalModelsError):
    pass
