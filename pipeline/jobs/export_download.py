"""Downloads the file of an export into our tables, a piece to a transaction, so that a kill costs one piece.

Its records are read when the whole file is kept: the download never waits for them, and an address that expires does no harm then.
"""

from __future__ import annotations

import time
from typing import Final

from db import export_file as files
from db import job as jobs
from db.job import ClaimedJob
from db.session import transaction
from pipeline import wiring
from pipeline.errors import Rejected, Retryable

PIECE_BYTES: Final = 1024 * 1024
PIECE_S: Final = 10.0
"""A slow download keeps what it has after so long."""
MAX_BYTES: Final = 1024**3
LONGEST_S: Final = 6 * 3600.0
SLICE_S: Final = 120.0
"""A task may take four minutes: after this the rest of the file is left to the next one."""
WHOLE_S: Final = 190.0
"""A server that cannot go on in the middle of a file has so long to send the whole."""


def download(job: ClaimedJob, url: str, began: float) -> bool:
    """Keep the file of an export, or what there is time for; return whether it is kept whole.

    began  monotonic time at which the task began
    Raises: Rejected, Retryable; what was read until then is kept.
    """
    with transaction() as session:
        kept = files.find_file(session, job.id)
    if kept.is_whole:
        return True
    if time.time() - job.created_at.timestamp() > LONGEST_S:
        raise Rejected("export_gone", "it was not downloaded within hours")
    downloads = wiring.export_downloads(job.connector_key)
    with downloads.open(
        url,
        max_bytes=MAX_BYTES,
        start=kept.size_bytes,
        validator=kept.validator,
        total_bytes=kept.total_bytes,
    ) as file:
        # The same file from its beginning: the server ignores ranges, so that the next task would begin here again.
        is_again = kept.size_bytes > 0 and file.start == 0 and file.validator in ("", kept.validator)
        if file.start == 0:
            with transaction() as session:
                jobs.hold(session, job)
                files.begin_file(session, job.id, validator=file.validator, total_bytes=file.total_bytes)
        writer = _Writer(job, file.start, resets_attempts=not is_again)
        ends_at = began + (WHOLE_S if is_again else SLICE_S)
        try:
            for piece in file.pieces:
                writer.write(piece)
                if time.monotonic() > ends_at:
                    if is_again:
                        raise Retryable("export_too_slow", f"{writer.size_bytes} bytes in {WHOLE_S:.0f} s")
                    return False
        finally:
            writer.flush()
    if file.total_bytes not in (None, writer.size_bytes):
        raise Retryable("remote_unavailable", f"{writer.size_bytes} of {file.total_bytes} bytes of the file came")
    with transaction() as session:
        jobs.hold(session, job)
        files.end_file(session, job.id)
    return True


class _Writer:
    """Gathers what is read into pieces. A stored piece is progress: attempts are counted from zero again."""

    def __init__(self, job: ClaimedJob, size_bytes: int, *, resets_attempts: bool) -> None:
        self.size_bytes = size_bytes
        self._job = job
        self._resets_attempts = resets_attempts
        self._held = bytearray()
        self._flushed_at = time.monotonic()

    def write(self, content: bytes) -> None:
        self._held += content
        self.size_bytes += len(content)
        if len(self._held) >= PIECE_BYTES or time.monotonic() - self._flushed_at > PIECE_S:
            self.flush()

    def flush(self) -> None:
        """Keep what is held. Raises: LostLease."""
        if not self._held:
            return
        with transaction() as session:
            (jobs.checkpoint if self._resets_attempts else jobs.hold)(session, self._job)
            files.add_piece(session, self._job.id, bytes(self._held))
        self._held.clear()
        self._flushed_at = time.monotonic()
