"""HDF5, which Keras wrote as `.h5`; recognised and refused."""

from guard.formats._refused import Refused


class Hdf5(Refused):
    """The signature is from https://support.hdfgroup.org/documentation/hdf5/latest/_f_m_t3.html."""

    code = "hdf5"
    thing = "an HDF5 file, as older versions of Keras write it"

    def claims(self, head: bytes, name: str) -> bool:  # noqa: ARG002 - the bytes are enough
        return head.startswith(b"\x89HDF\r\n\x1a\n")
