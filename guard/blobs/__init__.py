"""Blob stores, a folder or an S3 bucket with a local cache, that verify bytes as they are read."""

from guard.blobs._base import BlobMissing, Blobs
from guard.blobs._open import open_blobs
from guard.blobs.folder import FolderBlobs

__all__ = ["BlobMissing", "Blobs", "FolderBlobs", "open_blobs"]
