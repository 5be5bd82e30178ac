"""Models for a machine without an endpoint: a small chat model and a small embedding model, on loopback.

`python -m service.local_models` serves both as ordinary OpenAI-compatible endpoints, so that the rest of the
product takes the same path as with vLLM and knows nothing of this package. It needs the extra `.[local]`.
"""
