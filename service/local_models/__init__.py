"""A small chat model and a small embedding model for a machine without endpoints, on loopback.

`python -m service.local_models` serves both as OpenAI-compatible endpoints, so the rest of the product uses them as it
uses vLLM and does not depend on this package. It needs the extra `.[local]`.
"""

import os

# Before NumPy is imported. The embedder has threads of its own, and those of a BLAS would spin for the cores that the
# chat model needs.
for _name in ("OPENBLAS_NUM_THREADS", "VECLIB_MAXIMUM_THREADS"):
    os.environ.setdefault(_name, "1")
