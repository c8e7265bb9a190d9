"""The independent checker: its own formulas, no solver.

The names below are imported when they are first used, so that importing the package costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgealloc.face import face

if TYPE_CHECKING:
    from edgealloc.verify.certificate import check_certificate as check_certificate
    from edgealloc.verify.proof.verdict import Proof as Proof
    from edgealloc.verify.report import Report as Report
    from edgealloc.verify.solution import verify as verify
    from edgealloc.verify.solution import verify_files as verify_files
    from edgealloc.verify.solution import with_certificate as with_certificate

_HOME = {
    "Proof": "proof.verdict",
    "Report": "report",
    "check_certificate": "certificate",
    "verify": "solution",
    "verify_files": "solution",
    "with_certificate": "solution",
}

__all__ = list(_HOME)

__getattr__, __dir__ = face(__name__, _HOME)
