"""Writing of one object of a bucket, part by part, with a beginning that may be written again."""

import io
import os
import uuid
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from etils import epath

from jaxcurate.artifacts import bucket
from jaxcurate.artifacts.bucket_errors import errors, is_of_store

PART_BYTES = 2**25
"""Size of the first parts, and of the beginning that stays in memory until the end."""
_GROWTH = 1000
"""Number of parts after which their size grows: S3 takes 10,000 parts of an object."""
_IN_FLIGHT = 4
"""Largest number of parts that are sent at a time."""


class BucketFile(io.RawIOBase):
    """New object that is sent while it is written, and appears when it is closed.

    A small object is sent in one request. The first 32 MB stay in memory until the end, so that a
    header that tells the number of rows can be written last; what follows is sent at once, in
    parts. An object that is not closed, since its writer fails, never appears.

    Args:
        path: path of the object.
        made_by: token of the writing that the object belongs to, for its metadata.
    """

    def __init__(self, path: epath.Path, made_by: str | None = None) -> None:
        super().__init__()
        self._path, self._made_by = path, made_by
        self._head, self._part = bytearray(), bytearray()
        self._position = self._end = 0
        self._sent: _Parts | None = None

    def write(self, data: Any) -> int:
        """Writes all of ``data`` and returns its size in bytes.

        Raises:
            OSError: the position is neither the end nor within the first part.
        """
        data = memoryview(data).cast("B")
        n, left = len(data), data
        if self._position < self._end:
            if self._position + n > len(self._head):
                raise io.UnsupportedOperation("only the beginning can be written again")
            self._head[self._position : self._position + n] = data
            left = data[n:]
        elif self._sent is None and not self._part:
            room = PART_BYTES - len(self._head)
            self._head += left[:room]
            left = left[room:]
        while len(left):
            size = PART_BYTES * (1 + (0 if self._sent is None else self._sent.n // _GROWTH))
            room = size - len(self._part)
            self._part += left[:room]
            left = left[room:]
            if len(self._part) == size:
                self._send()
        self._position += n
        self._end = max(self._end, self._position)
        return n

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a position within the first part, or to the end, and returns it."""
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._end}[whence]
        position = base + offset
        if not (0 <= position <= len(self._head) or position == self._end):
            raise io.UnsupportedOperation("only the beginning can be written again")
        self._position = position
        return position

    def tell(self) -> int:
        """Returns the position of the next byte."""
        return self._position

    def seekable(self) -> bool:
        """Returns True."""
        return True

    def writable(self) -> bool:
        """Returns True."""
        return True

    def close(self) -> None:
        """Finishes the object, which appears as a whole."""
        if self.closed:
            return
        try:
            if self._sent is None and not self._part:
                bucket.write(self._path, bytes(self._head), self._made_by)
            else:
                if self._part:
                    self._send()
                assert self._sent is not None
                with errors(self._path):
                    self._sent.finish(bytes(self._head))
        except BaseException:
            self.abandon()
            raise
        finally:
            super().close()

    def __del__(self) -> None:
        """Leaves a file that nobody closed as it is, instead of making an object of it."""

    def abandon(self) -> None:
        """Ends the writing without an object."""
        sent, self._sent = self._sent, None
        self._head, self._part = bytearray(), bytearray()
        if sent is not None:
            sent.abandon()
        super().close()

    def _send(self) -> None:
        with errors(self._path):
            if self._sent is None:
                is_s3 = os.fspath(self._path).startswith("s3://")
                self._sent = (_S3Parts if is_s3 else _GcsParts)(self._path, self._made_by)
            data, self._part = bytes(self._part), bytearray()
            self._sent.send(data)


class _Parts:
    """Parts of an object after the first part, which comes last."""

    n = 0
    """Number of parts so far."""

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def finish(self, head: bytes) -> None:
        raise NotImplementedError

    def abandon(self) -> None:
        raise NotImplementedError


class _S3Parts(_Parts):
    """Multipart upload, whose parts may be sent in any order."""

    def __init__(self, path: epath.Path, made_by: str | None) -> None:
        self._fs = bucket.system(path)
        bucket_name, key, _ = self._fs.split_path(os.fspath(path))
        self._where: dict[str, str] = dict(Bucket=bucket_name, Key=key)
        about = bucket.metadata(path, made_by)
        begun = self._fs.call_s3("create_multipart_upload", **self._where, **about)
        self._where["UploadId"] = begun["UploadId"]
        self._tags: dict[int, str] = {}
        self._pool, self._waiting = ThreadPoolExecutor(_IN_FLIGHT), deque[Future]()

    def send(self, data: bytes) -> None:
        self.n += 1
        self._waiting.append(self._pool.submit(self._put, self.n + 1, data))
        while len(self._waiting) >= _IN_FLIGHT:
            self._waiting.popleft().result()

    def finish(self, head: bytes) -> None:
        self._put(1, head)
        while self._waiting:
            self._waiting.popleft().result()
        self._pool.shutdown()
        parts = [{"PartNumber": n, "ETag": self._tags[n]} for n in sorted(self._tags)]
        self._fs.call_s3(
            "complete_multipart_upload", **self._where, MultipartUpload={"Parts": parts}
        )

    def abandon(self) -> None:
        self._pool.shutdown(cancel_futures=True)
        try:
            self._fs.call_s3("abort_multipart_upload", **self._where)
        except Exception as error:  # the error that led here is the one to show
            if not is_of_store(error):
                raise

    def _put(self, number: int, data: bytes) -> None:
        out = self._fs.call_s3("upload_part", **self._where, PartNumber=number, Body=data)
        self._tags[number] = out["ETag"]


class _GcsParts(_Parts):
    """Object of all later parts, to which the first is joined within the store at the end."""

    def __init__(self, path: epath.Path, made_by: str | None) -> None:
        self._fs, self._path, self._made_by = bucket.system(path), path, made_by
        stem = path.parent / f".jaxcurate-{uuid.uuid4().hex}"
        self._names = [f"{os.fspath(stem)}.head", f"{os.fspath(stem)}.tail"]
        about = bucket.metadata(path, made_by)
        self._tail = self._fs.open(self._names[1], "wb", block_size=PART_BYTES, **about)

    def send(self, data: bytes) -> None:
        self.n += 1
        self._tail.write(data)

    def finish(self, head: bytes) -> None:
        self._tail.close()
        bucket.write(self._names[0], head, self._made_by)
        self._compose()
        bucket.remove(self._names)

    def abandon(self) -> None:
        try:
            self._tail.discard()
            bucket.remove(self._names)
        except Exception as error:  # the error that led here is the one to show
            if not is_of_store(error):
                raise

    def _compose(self) -> None:
        """Joins both objects to one with metadata, which ``merge`` of gcsfs would leave out."""
        fs, paths = self._fs, [os.fspath(self._path), *self._names]
        keys = [fs.split_path(path)[:2] for path in paths]
        about = bucket.metadata(self._path, self._made_by)
        fs.call(
            "POST",
            "b/{}/o/{}/compose",
            *keys[0],
            headers={"Content-Type": "application/json"},
            json={
                "sourceObjects": [{"name": key} for _, key in keys[1:]],
                "kind": "storage#composeRequest",
                "destination": {"name": keys[0][1], "bucket": keys[0][0], **about},
            },
        )
