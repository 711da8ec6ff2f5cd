"""Who released an instance: what anybody can tell who has public keys, with or without the key ring."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pydicom.dataset import Dataset

from blessmark import pixels
from blessmark.payload.signature import LAYER_ID, Instance, PublicKey
from blessmark.segment import batch
from blessmark.signing import Release, check
from blessmark.types import Frame, Segmenter, SignatureEvidence, SignatureState
from dicom_node import header, label
from dicom_node.measuring import stage
from dicom_node.report import InstanceReport, SignatureReport

_SOP_INSTANCE_UID = 0x00080018
_SEVERITY = {state: place for place, state in enumerate(SignatureState)}
#: what a command without key ring calls an instance; none of these is a finding of the ring
FINDINGS = {
    SignatureState.VALID: "signed",
    SignatureState.NONE: "unsigned",
    SignatureState.UNKNOWN_KEY: "unknown-signer",
    SignatureState.REVOKED: "revoked-signer",
    SignatureState.INVALID: "bad-signature",
}


def release_of(
    ds: Dataset, mark: label.Mark | None, number: int, frames: int, keys: Sequence[PublicKey]
) -> Release:
    """What is needed to check the signature of frame `number` of `ds`, which has so many frames."""
    beside = {} if mark is None else dict(mark.signatures)
    return Release(
        Instance(header.text(ds, _SOP_INSTANCE_UID), frames),
        keys,
        beside.get(number),
        hinted=mark is not None and LAYER_ID in mark.segmenters and number not in beside,
    )


def of_instance(frames: Sequence[SignatureEvidence]) -> SignatureReport:
    """The signature of an instance: the worst of its frames.

    A signer signs every frame: an instance that holds some without signature, or by another key, is not
    what anybody released.
    """
    signed = [frame for frame in frames if frame.state is not SignatureState.NONE]
    if not signed:
        return SignatureReport()
    worst = max(signed, key=lambda frame: _SEVERITY[frame.state])
    mixed = len(signed) < len(frames) or len({frame.key for frame in signed}) > 1
    state = SignatureState.INVALID if mixed else worst.state
    when = datetime.fromtimestamp(worst.time_s, UTC).isoformat().replace("+00:00", "Z")
    return SignatureReport(
        str(state), worst.key.hex(), when if worst.key else "", "" if mixed else worst.carried
    )


def check_released(
    ds: Dataset, source: str, segmenters: Sequence[Segmenter], keys: Sequence[PublicKey]
) -> InstanceReport:
    """Judge the signatures of an instance without any secret; its record stays unread.

    Raises
    ------
    PixelError
        the instance is broken
    """
    image = pixels.load(ds)
    if isinstance(image, pixels.Passthrough):
        return InstanceReport(source, FINDINGS[SignatureState.NONE], str(image.reason))
    mark = label.read_mark(ds)
    first, *others = segmenters

    def checked(frame: Frame, drawer: Segmenter) -> SignatureEvidence:
        with stage("extract"):
            return check(frame, (drawer, *others), release_of(ds, mark, frame.number, image.frames, keys))

    found = of_instance([checked(frame, drawer) for frame, drawer in batch.drawn_ahead(image, first)])
    return InstanceReport(
        source,
        FINDINGS[SignatureState(found.state)],
        segmenters=tuple(each.id for each in segmenters),
        number_of_frames=image.frames,
        signature=found,
    )
