"""Kinds of files by their first bytes, for errors that name the kind of a wrong file."""

import codecs

_SIGNATURES = (
    (b"\x93NUMPY", "a .npy file"),
    (b"PK\x03\x04", "a zip archive"),
    (b"PK\x05\x06", "an empty zip archive"),
    (b"PAR1", "a Parquet file"),
    (b"ARROW1", "an Arrow file"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"\x1f\x8b", "a file compressed by gzip"),
    (b"BZh", "a file compressed by bzip2"),
    (b"\xfd7zXZ\0", "a file compressed by xz"),
    (b"\x28\xb5\x2f\xfd", "a file compressed by Zstandard"),
    *((bytes([0x80, protocol]), "a pickle, which is never read") for protocol in range(2, 6)),
    (b"MATLAB 5.0", "a MATLAB file"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89PNG\r\n\x1a\n", "a PNG picture"),
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"%PDF", "a PDF document"),
    (b"%!PS", "a PostScript program"),
    (b"version https://git-lfs", "a pointer of Git LFS, not the file that it stands for"),
)
N_BYTES = 512
"""Number of first bytes that determine the kind of a file."""


def file_kind(beginning: bytes) -> str:
    """Returns the kind of a file in words, or "" if it is unknown.

    Args:
        beginning: first `N_BYTES` bytes of the file, or all bytes of a shorter file.

    Examples:
        >>> file_kind(b"PAR1..."), file_kind(b"id,label"), file_kind(b"")
        ('a Parquet file', 'text, such as CSV', 'an empty file')
    """
    if not beginning:
        return "an empty file"
    for signature, kind in _SIGNATURES:
        if beginning.startswith(signature):
            return kind
    try:
        # Incrementally, because the last character may be cut.
        text = codecs.getincrementaldecoder("utf-8")().decode(beginning)
    except UnicodeDecodeError:
        return ""
    if not all(character.isprintable() or character.isspace() for character in text):
        return ""
    return "text, such as CSV" if "," in text or "\t" in text else "text"
