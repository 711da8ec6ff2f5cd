"""Laws of the signature layer: it comes off bit for bit, and no changed sample survives it."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st

from blessmark.embed import embed
from blessmark.errors import CapacityError
from blessmark.payload.signature import Instance, PublicKey, SigningKey
from blessmark.roi import block_map, pixel_mask
from blessmark.signing import Release, check, peel, sign
from blessmark.types import Frame, SignatureState
from blessmark.verify import verify
from tests.strategies import ABOUT, RING, ROOMY, Drawn, frames, maps

SIGNER = SigningKey(bytes(range(32)))
INSTANCE = Instance(ABOUT.sop_instance_uid, 1)
TRUSTING = Release(INSTANCE, (PublicKey(SIGNER.public),))
CAP = 16


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), frame=frames(min_side=64, contents=ROOMY))
def test_signed_frames(data: st.DataObject, frame: Frame) -> None:
    drawn = Drawn(data.draw(maps(frame)))
    try:
        marked = embed(frame, ABOUT, RING, drawn, max_change=CAP // 2)
    except CapacityError:
        assume(False)
    signed = sign(frame, marked, drawn, INSTANCE, 7, SIGNER, max_change=CAP)
    event(f"beside the pixels: {signed.beside}")
    samples = signed.done.frame.samples
    assert np.abs(samples - frame.samples).max() <= CAP
    roi = block_map(drawn, frame, marked.receipt.lattice)
    inside = pixel_mask(roi, frame.rows, frame.cols)
    assert np.array_equal(samples[:, inside], frame.samples[:, inside])
    beside = signed.signature.to_bytes() if signed.beside else None
    release = Release(INSTANCE, TRUSTING.keys, beside)
    verdict = verify(signed.done.frame, RING, [drawn], release=release)
    assert verdict.exact
    assert verdict.restored is not None
    assert np.array_equal(verdict.restored.samples, frame.samples)
    assert verdict.signature.state is SignatureState.VALID
    found = peel(signed.done.frame, [drawn])
    assert (found is None) == signed.beside
    if found is not None:
        assert np.array_equal(found.frame.samples, marked.frame.samples)
    at = tuple(data.draw(st.integers(0, side - 1)) for side in samples.shape)
    changed = samples.copy()
    changed[at] += 1 if changed[at] < frame.hi else -1
    assert check(frame.with_samples(changed), [drawn], release).state is not SignatureState.VALID
