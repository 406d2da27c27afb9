"""Bytes by digest, verified as they are read: a folder, or an S3 bucket with a local cache."""

from guard.blobs._base import BlobMissing, Blobs
from guard.blobs._open import open_blobs
from guard.blobs.folder import FolderBlobs

__all__ = ["BlobMissing", "Blobs", "FolderBlobs", "open_blobs"]
