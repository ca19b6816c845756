"""Lets a process of our own keep the memory it frees, which decoding and networks ask back at once.

glibc returns every block above 32 MiB to the system when it is freed, and asks for it again, page by page and
zeroed, for the next photo or activation: 55,000 page faults a photo for two small networks, a tenth of the time.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # malloc.h
KEPT_BYTES = 64 << 20
"""Blocks up to this size are taken from the heap, and as much freed memory is kept at its end, in bytes.

Enough for a 4K photo and most activations. With 1 GiB, holes between larger blocks raised the peak of the heaviest
recipe from 3.1 to 4.9 GiB.
"""


@cache
def keep_freed_memory() -> bool:
    """Tell the C library to keep freed memory for the next request; once for each process.

    For processes that only extract. A notebook or a server of somebody else is left as it is.

    Returns
    -------
    bool
        False where the C library is not glibc: nothing is changed then.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    # Some releases limit the threshold to 32 MiB; there blocks outside the heap are forbidden altogether.
    is_set = mallopt(_M_MMAP_THRESHOLD, KEPT_BYTES) or mallopt(_M_MMAP_MAX, 0)
    return bool(is_set and mallopt(_M_TRIM_THRESHOLD, KEPT_BYTES))
