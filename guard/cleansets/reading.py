"""What training sets share with clean sets: how encoded images and labelled files are read.

Everything here raises `CleanSetError`.
"""

from guard.cleansets._decode import MAX_ENCODED_BYTES, decode
from guard.cleansets._image_folder import is_litter
from guard.cleansets._npz import (
    UNREADABLE,
    Member,
    channel_axis,
    fitting,
    labels_in,
    members_of,
    opened,
)
from guard.cleansets._parquet import columns_of, encoded_in, names_in
from guard.cleansets._raw import order_names

__all__ = [
    "MAX_ENCODED_BYTES",
    "UNREADABLE",
    "Member",
    "channel_axis",
    "columns_of",
    "decode",
    "encoded_in",
    "fitting",
    "is_litter",
    "labels_in",
    "members_of",
    "names_in",
    "opened",
    "order_names",
]
