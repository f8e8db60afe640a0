"""Files in the cache that are executed: only ours, only unchanged.

Whoever can write to a compiled library runs code as the user who loads it. So a cached one is
loaded only if it and its folder belong to this user (or root) and nobody else may write to them,
and if its content has the digest that was recorded when it was made.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path


def distrusted(path: Path) -> str | None:
    """Why a file or folder is not to be trusted, for people; None if it is."""
    try:
        about = path.lstat()
    except OSError as error:
        return f"it cannot be read ({error.strerror})"
    if stat.S_ISLNK(about.st_mode):
        return "it is a link"
    if about.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {about.st_uid}, not to this one"
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write to it (mode {stat.S_IMODE(about.st_mode):o})"
    return None
