"""Objects in a bucket: Amazon S3, MinIO, Ceph, and what else speaks it.

    <prefix>store-id         what tells this store from another
    <prefix>ab/ab12...       objects, as in a spool

The server must be strongly consistent: what it has acknowledged, a later HEAD, GET or LIST shows. It should
know `If-None-Match: *` on PUT (Amazon since 2024, newer MinIO, Ceph); this is tried with the marker. Of one
that does not, each object is asked for before it is put, which is a request more and proves the same: what
appears between the two is young, and young objects are not removed.

An object is written on this machine, without a sync: the promise is the answer to the PUT. The SHA-256 goes
with it, so the server takes no other bytes under that name. Of a large object each part has one.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from email.utils import parsedate_to_datetime
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from dicom_node.blobs import asking
from dicom_node.blobs.asking import Absent, Bucket, Taken
from dicom_node.blobs.bench import Bench
from dicom_node.blobs.cache import Cache
from dicom_node.blobs.port import Guard
from dicom_node.blobs.shared import MARKER, YOUNG_S, SharedStore, boottime, checked
from dicom_node.errors import BlobsUnavailable, SpoolError, SpoolFull
from dicom_node.spool import Seen

#: larger objects go in parts of this size
_PART_BYTES = 64 << 20
_READ_BYTES = 1 << 20
#: the answer to one LIST, and how many of them one `discard` looks at
_PAGE, _PAGES = 1000, 200
#: parts of an object that nobody has ended for so long are given up, seconds
_FORGOTTEN_S = 86400.0
#: objects removed at the same time
_AT_ONCE = 8
#: the space of names, in which they are spread evenly
_SPACE = float(1 << 256)


class S3Store(SharedStore):
    """A store in a bucket, read through a cache of this machine.

    Parameters
    ----------
    bucket : where it is
    folder : of this machine, for what is being written and for the cache
    cache_bytes : about what the cache may hold
    reserve_bytes : free space of this machine below which `check_room` refuses
    boot : which boot of this machine it is
    guard, keep_s, young_s : as for `SharedStore`
    part_bytes : objects that are larger go in parts of this size
    """

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        reserve_bytes: int,
        guard: Callable[[], Guard],
        keep_s: float,
        *,
        cache_bytes: int,
        boot: str = "",
        young_s: float = YOUNG_S,
        part_bytes: int = _PART_BYTES,
    ) -> None:
        super().__init__(guard, keep_s, young_s=young_s)
        self._bucket = bucket
        self._part_bytes = part_bytes
        self._bench = Bench(folder, reserve_bytes, self._publish, shared=False)
        self._cache = Cache(folder / "cache", cache_bytes, boot)
        #: where the next `discard` goes on
        self._after = ""
        self._clock_offset = 0.0

    def __str__(self) -> str:
        return f"bucket {self._bucket.name}"

    @property
    def bench(self) -> Bench:
        """A folder of this machine."""
        return self._bench

    def path(self, name: str) -> Path:
        """The object in the cache; fetched and hashed first, if it is not there."""
        return self._cache.get(checked(name), lambda: self._fetch(name))

    def look(self, name: str) -> Seen | None:
        """Size and age of an object; None if it is absent for certain."""
        head = self._head(name)
        return None if head is None else Seen(head["ContentLength"], _stamp(head["LastModified"]))

    def verify(self, name: str) -> None:
        """Raise SpoolError unless the bytes in the bucket still have the hash that is their name."""
        self._fetch(checked(name)).unlink()

    def used_bytes(self) -> int:
        """Bytes of all objects; of more than a thousand, as many as the first thousand let expect."""
        listed, more = self._page("")
        total = sum(seen.size for seen in listed.values())
        if not more:
            return total
        return int(total / ((int(max(listed), 16) + 1) / _SPACE))

    def sweep(self) -> int:
        """Remove what crashed writers of this node left, and a cache that cannot be relied on."""
        self._cache.begin()
        return super().sweep()

    def check_room(self) -> None:
        """Raise SpoolFull if this machine has no room to write an object, even without its cache."""
        try:
            super().check_room()
        except SpoolFull:
            if not self._cache.evict(pressed=True):
                raise
            super().check_room()

    def is_short(self) -> bool:
        """Never: what is removed from a bucket makes no room on this machine."""
        return False

    def check_room_to_work(self, name: str) -> None:
        """Raise SpoolFull unless this machine has room for an output as large as this object."""
        size = self.path(name).stat().st_size
        try:
            self.bench.check_room_for(size)
        except SpoolFull:
            if not self._cache.evict(pressed=True):
                raise
            self.bench.check_room_for(size)

    # requests

    @cached_property
    def _client(self) -> Any:
        return asking.client(self._bucket)

    @cached_property
    def _once(self) -> Any:
        """For removals: tried a second time, one could remove what was put after the first."""
        return asking.client(self._bucket, tries=1)

    def _ask(self, operation: str, key: str, *, via: Any = None, **more: Any) -> dict[str, Any]:
        """One request about a key; raises Absent, Taken and BlobsUnavailable."""
        with asking.told_apart(self._bucket):
            call = getattr(via or self._client, operation)
            answer: dict[str, Any] = call(Bucket=self._bucket.name, Key=key, **more)
        self._set_clock(answer)
        return answer

    def _key(self, name: str) -> str:
        return f"{self._bucket.prefix}{checked(name)[:2]}/{name}"

    def _head(self, name: str) -> dict[str, Any] | None:
        try:
            return self._ask("head_object", self._key(name), ChecksumMode="ENABLED")
        except Absent:
            self.require_marker()  # a bucket that is not there answers a HEAD in the same way
            return None

    @cached_property
    def _knows_conditions(self) -> bool:
        """Whether the server refuses to put over what is there: tried with the marker."""
        marker = self._bucket.prefix + MARKER
        self.require_marker()
        content = self._read_marker() or ""
        try:
            self._ask("put_object", marker, Body=content.encode(), IfNoneMatch="*")
        except Taken:
            return True
        return False

    def _lay(self, part: Path, name: str) -> bool:
        # what would go in parts is asked for first in any case: it costs little beside sending it for nothing
        alone = self._knows_conditions and part.stat().st_size <= self._part_bytes
        if not alone and self._head(name) is not None:
            return False
        try:
            self._send(part, name, {"IfNoneMatch": "*"} if self._knows_conditions else {})
        except Taken:
            return False
        return True

    def _replace(self, part: Path, name: str) -> None:
        self._send(part, name, {})

    def _send(self, part: Path, name: str, condition: dict[str, str]) -> None:
        size = part.stat().st_size
        with part.open("rb") as file:
            if size > self._part_bytes:
                try:
                    self._send_parts(file, name, condition)
                except Absent:
                    # asked to end twice, because the first answer was lost; or somebody gave it up
                    raise BlobsUnavailable(
                        f"an upload to {self} has ended already; send object {name} again"
                    ) from None
                return
            checksum = base64.b64encode(bytes.fromhex(name)).decode()
            self._ask(
                "put_object",
                self._key(name),
                Body=file,
                ContentLength=size,
                ChecksumSHA256=checksum,
                **condition,
            )

    def _send_parts(self, file: BinaryIO, name: str, condition: dict[str, str]) -> None:
        key = self._key(name)
        upload = self._ask("create_multipart_upload", key, ChecksumAlgorithm="SHA256")["UploadId"]
        try:
            digest = hashlib.sha256()
            done: list[dict[str, Any]] = []
            while data := file.read(self._part_bytes):
                digest.update(data)
                checksum = base64.b64encode(hashlib.sha256(data).digest()).decode()
                number = {"PartNumber": len(done) + 1}
                sent = self._ask(
                    "upload_part", key, UploadId=upload, Body=data, ChecksumSHA256=checksum, **number
                )
                done.append(number | {"ETag": sent["ETag"], "ChecksumSHA256": checksum})
            if digest.hexdigest() != name:
                raise SpoolError(f"object {name} changed on the disk of this machine; check it")
            self._ask(
                "complete_multipart_upload",
                key,
                UploadId=upload,
                MultipartUpload={"Parts": done},
                **condition,
            )
        except BaseException:
            self._give_up(key, upload)
            raise

    def _give_up(self, key: str, upload: str) -> None:
        """Best effort: what is left of it goes a day later."""
        try:
            self._ask("abort_multipart_upload", key, UploadId=upload)
        except (Absent, SpoolError):
            return

    def holds(self, name: str, size: int) -> bool:
        head = self._head(name)
        if head is None or head["ContentLength"] != size:
            return False
        told = str(head.get("ChecksumSHA256", ""))
        if told and "-" not in told and head.get("ChecksumType", "FULL_OBJECT") == "FULL_OBJECT":
            return told == base64.b64encode(bytes.fromhex(name)).decode()
        try:
            self.verify(name)
        except SpoolError as error:
            if error.__class__ is not SpoolError:
                raise
            return False
        return True

    def _laid(self, part: Path, name: str) -> None:
        self._cache.admit(part, name)

    def _fetch(self, name: str) -> Path:
        """A file that is being written, with the object whole in it."""
        try:
            answer = self._ask("get_object", self._key(name))
        except Absent:
            self.require_marker()
            raise SpoolError(f"object {name} is gone from {self}; send the object again") from None
        arrived: list[Path] = []

        def check(part: Path, found: str) -> None:
            if found != name:
                raise SpoolError(f"object {name} has changed in {self}; send the object again")
            arrived.append(part)

        writer = self.bench.writer_to(check)
        try:
            with asking.told_apart(self._bucket):
                for chunk in answer["Body"].iter_chunks(_READ_BYTES):
                    writer.write(chunk)
            writer.keep()
        finally:
            writer.discard()
        return arrived[0]

    def _walk(self) -> Iterator[Mapping[str, Seen]]:
        self._end_forgotten_uploads()
        for _ in range(_PAGES):
            listed, more = self._page(self._after)
            yield listed
            self._after = max(listed) if listed and more else ""
            if not more:
                return

    def _page(self, after: str) -> tuple[dict[str, Seen], bool]:
        """Up to a thousand objects behind a name, and whether there are more."""
        prefix = self._bucket.prefix
        start = {"StartAfter": f"{prefix}{after[:2]}/{after}"} if after else {}
        with asking.told_apart(self._bucket):
            answer = self._client.list_objects_v2(
                Bucket=self._bucket.name, Prefix=prefix, MaxKeys=_PAGE, **start
            )
        self._set_clock(answer)
        found = {}
        for each in answer.get("Contents", ()):
            folder, _, name = str(each["Key"])[len(prefix) :].rpartition("/")
            if folder == name[:2] and len(name) == 64:
                found[name] = Seen(int(each["Size"]), _stamp(each["LastModified"]))
        return found, bool(answer["IsTruncated"]) and bool(found)

    def _drop(self, names: Iterable[str], limit_s: float, until: float) -> int:
        """Looks at their ages once more, which is one request for all, and removes them by another."""
        wanted = sorted(names)
        listed, _ = self._page(wanted[0][:-1])
        old = [name for name in wanted if name in listed and self._now() - listed[name].put_at >= limit_s]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            return sum(pool.map(lambda name: self._delete(name, until), old))

    def _delete(self, name: str, until: float) -> bool:
        if boottime() > until:
            return False
        self._ask("delete_object", self._key(name), via=self._once)
        self._cache.forget(name)
        return True

    def _end_forgotten_uploads(self) -> None:
        with asking.told_apart(self._bucket):
            answer = self._client.list_multipart_uploads(Bucket=self._bucket.name, Prefix=self._bucket.prefix)
        for upload in answer.get("Uploads", ()):
            if self._now() - _stamp(upload["Initiated"]) > _FORGOTTEN_S:
                self._give_up(upload["Key"], upload["UploadId"])

    def _now(self) -> float:
        """The clock of the server, as its last list told it."""
        return time.time() + self._clock_offset

    def _set_clock(self, answer: Mapping[str, Any]) -> None:
        said = answer.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
        if said:
            self._clock_offset = parsedate_to_datetime(said).timestamp() - time.time()

    def _read_marker(self) -> str | None:
        try:
            answer = self._ask("get_object", self._bucket.prefix + MARKER)
        except Absent:
            return None
        with asking.told_apart(self._bucket):
            content: bytes = answer["Body"].read()
        return content.decode("ascii", "replace").strip()

    def _write_marker(self, identity: str) -> None:
        try:
            self._ask(
                "put_object", self._bucket.prefix + MARKER, Body=identity.encode("ascii"), IfNoneMatch="*"
            )
        except Taken:
            return


def _stamp(at: datetime) -> float:
    return at.timestamp()
