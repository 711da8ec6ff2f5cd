"""The byte model against its definition, and the coder at its edges."""

from __future__ import annotations

import numpy as np
import pytest

from blessmark.errors import RecordError
from blessmark.payload import model
from blessmark.payload.model import RECORD_SYMBOLS, Decoder, Encoder
from tools.make_dictionary import content, values

DICTIONARY = [symbol for kind, value in values() for symbol in (257 + kind, *(1 + b for b in value), 0)]


def defined_weights(own: list[int]) -> list[int]:
    """The weights of the next symbol as the module's docstring defines them, in plain Python."""
    history = DICTIONARY + own
    probability = [2**24 // 257] * 257
    for k in range(7):
        recent = history[len(history) - k :]
        if any(symbol >= 257 for symbol in recent[1:]):
            break
        counts = [0] * 257
        for place in range(k, len(history)):
            if history[place] < 257 and history[place - k : place] == recent:
                counts[history[place]] += 1 if place < len(DICTIONARY) else 4
        total, escape = sum(counts), 4 * sum(count > 0 for count in counts)
        if total == 0:
            break
        probability = [
            (n * 2**24 + escape * p) // (total + escape) for n, p in zip(counts, probability, strict=True)
        ]
    return [p // 64 + 1 for p in probability]


def test_the_dictionary_is_the_generators_and_the_frozen_one() -> None:
    assert model._dictionary().tolist() == DICTIONARY
    assert model._DICTIONARY.read_bytes() == content()


def test_another_dictionary_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(model, "DICTIONARY_SHA256", "0" * 64)
    model._dictionary.cache_clear()
    model._fresh.cache_clear()
    with pytest.raises(RecordError, match="install the package again"):
        Encoder()


@pytest.mark.parametrize(
    "own",
    [
        [257],
        [257, 50],
        [267, *(1 + b for b in b"1.2.840.113619.2")],
        [258, *(1 + b for b in b"PAT001"), 0, 263, *(1 + b for b in b"PAT00")],
        [276, 256, 1, 256, 1, 256, 1, 256],
    ],
)
def test_weights_are_as_defined(own: list[int]) -> None:
    history = model._Model()
    history.append(own)
    total = model._expect(history._state, history._length)
    assert history._state.weights.tolist() == defined_weights(own)
    assert total == sum(defined_weights(own))


def test_a_long_value_that_the_model_did_not_expect_comes_back() -> None:
    noise = np.random.default_rng(2).bytes(9_000)
    encoder = Encoder()
    encoder.text(0, noise)
    encoder.text(0, b"after it")
    encoder.uniform(2**61 + 5, 2**64)
    decoder = Decoder(encoder.finish())
    assert [decoder.text(0), decoder.text(0)] == [noise, b"after it"]
    assert decoder.uniform(2**64) == 2**61 + 5
    decoder.finish()


def test_several_texts_are_read_at_once_whoever_expected_them() -> None:
    values = [b"Anonymous", bytes(range(200, 255)), None, b"Anonymous", b""]
    encoder = Encoder()
    for value in values:
        encoder.choice(0 if value is None else 2, (3, 1, 1))
        if value is not None:
            encoder.text(0, value)
    decoder = Decoder(encoder.finish())
    assert decoder.choices_and_texts([0] * 5, (3, 1, 1)) == [
        (0, b"") if value is None else (2, value) for value in values
    ]
    decoder.finish()


@pytest.mark.parametrize(("factor", "longer"), [(1, False), (2, False), (3, True)])
def test_what_is_nearly_as_long_is_compared_exactly(factor: int, longer: bool) -> None:
    """A step of weight 2 out of 2 * 2^16 takes as many bits as two bytes do."""
    steps = np.array([(2, 0, factor << 16), (1, 0, 1)], np.int64)
    assert model._longer(steps, 0.0, 2) is longer


def test_everything_comes_back_in_order() -> None:
    encoder = Encoder()
    encoder.choice(2, (5, 1, 3))
    encoder.text(0, b"Anonymous")
    encoder.number(0)
    encoder.number(1)
    encoder.number(2**32 - 1)
    encoder.text(1, bytes(range(255, 200, -1)))
    encoder.text(1, b"")
    encoder.uniform(6, 7)
    decoder = Decoder(encoder.finish() + bytes(3))
    assert decoder.choice((5, 1, 3)) == 2
    assert decoder.text(0) == b"Anonymous"
    assert [decoder.number() for _ in range(3)] == [0, 1, 2**32 - 1]
    assert decoder.text(1) == bytes(range(255, 200, -1))
    assert decoder.text(1) == b""
    assert decoder.uniform(7) == 6
    decoder.finish()


def test_the_expected_is_short_and_the_unexpected_no_longer_than_itself() -> None:
    def length(value: bytes) -> int:
        encoder = Encoder()
        encoder.text(0, value)
        return len(encoder.finish())

    assert length(b"Anonymous") <= 4
    noise = np.random.default_rng(1).bytes(64)
    assert length(noise) <= 64 + 3
    assert length(b"A" * 64) < 16


def test_a_state_that_is_handed_back_holds_nothing_of_its_record() -> None:
    model._SPARE.clear()
    encoder = Encoder()
    encoder.text(0, b"Example^Anna")
    encoder.text(10, b"1.2.840.113619.2.55.3" * 3)
    encoder.text(1, bytes(range(200, 255)))
    content = encoder.finish()
    assert [is_as_fresh(spare) for spare in model._SPARE] == [True]
    decoder = Decoder(content)
    assert model._SPARE == []
    read = [decoder.text(kind) for kind in (0, 10, 1)]
    decoder.finish()
    assert read == [b"Example^Anna", b"1.2.840.113619.2.55.3" * 3, bytes(range(200, 255))]
    assert [is_as_fresh(spare) for spare in model._SPARE] == [True]


def test_a_reader_does_not_share_what_a_writer_s_state_was_left_with() -> None:
    """Else a sender would read back, by the same wrong counts, what no receiver can read."""
    model._SPARE.clear()
    Encoder().finish()
    (left,) = model._SPARE
    left.after[1 + ord("E"), 1 + ord("x")] += 4000
    left.counts[0, 1 + ord("x")] += 4000
    encoder = Encoder()
    encoder.text(0, b"Example^Exact")
    content = encoder.finish()
    try:
        read = Decoder(content).text(0)
    except RecordError:
        return
    assert read != b"Example^Exact"


def is_as_fresh(state: model._State) -> bool:
    return all(
        np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(state, model._fresh(), strict=True)
    )


def test_what_is_left_over_is_an_error() -> None:
    encoder = Encoder()
    encoder.uniform(200, 256)
    decoder = Decoder(encoder.finish())
    decoder.uniform(16)
    with pytest.raises(RecordError, match="after its end"):
        decoder.finish()


def test_work_is_bounded_when_writing() -> None:
    encoder = Encoder()
    with pytest.raises(RecordError, match="fewer fields"):
        encoder.text(0, bytes(RECORD_SYMBOLS))


def test_work_is_bounded_when_reading_a_claimed_length() -> None:
    encoder = Encoder()
    encoder.choice(1, (63, 1))
    encoder.number(RECORD_SYMBOLS + 1)
    with pytest.raises(RecordError, match=f"{RECORD_SYMBOLS + 1} bytes"):
        Decoder(encoder.finish()).text(0)


def test_work_is_bounded_when_reading_text_without_end() -> None:
    decoder = Decoder(np.random.default_rng(1).bytes(12_000))
    with pytest.raises(RecordError, match="longer than"):
        [decoder.text(0) for _ in range(RECORD_SYMBOLS)]
