"""A small chat model and a small embedding model for a machine without endpoints, on loopback.

`python -m service.local_models` serves both as OpenAI-compatible endpoints, so the rest of the product uses them as it
uses vLLM and does not depend on this package. It needs the extra `.[local]`.
"""
