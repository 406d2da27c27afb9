"""What is taken in, from where, and how large it may be."""

from dataclasses import dataclass

from guard.settings._row import row


@dataclass(frozen=True, kw_only=True)
class Intake:
    """What is taken in, from where, and how large it may be."""

    intake_bucket: str = row("models", "bucket that uploads arrive in")
    intake_buckets: tuple[str, ...] = row(
        (), "all buckets whose objects may be nominated, comma-separated", derived="<intake_bucket>"
    )
    allow_unversioned: bool = row(
        default=False,
        text="accept objects without a version id, known by ETag and LastModified only",
    )
    max_upload_bytes: int = row(
        4 << 30, "larger uploads are refused before a byte is read", unit="bytes", low=1
    )
    max_classes: int = row(25_000, "models of more classes are refused", low=2)
    max_parameters: int = row(2_000_000_000, "of a network; larger ones are refused", low=1)
    max_network_tensors: int = row(4_000, "of a network; deeper ones are refused", low=1)
    max_image_operations: int = row(
        10**12, "multiplications and additions of one image in a network", low=1
    )
    max_molecule_operations: int = row(10**11, "the same of one generated molecule", low=1)
    max_network_bytes: int = row(
        16 << 30,
        "memory that weights and batches of a scan need by their shapes",
        unit="bytes",
        low=1,
    )
    uploader_scans: int = row(100, "most scans that are open of one uploader", low=1)
    shared_scans: int = row(
        200, "scans that are open at once, shared among projects by their priority", low=1
    )
    manifest_grace_seconds: float = row(
        30.0, "how long weights wait for a config.json beside them", unit="s", low=0
    )
    sweep_seconds: float = row(
        60.0, "how often buckets are listed for uploads whose event was lost", unit="s", low=1
    )
    sweep_limit: int = row(1000, "the most nominations that one sweep makes", low=1)
    sqs_queue_url: str = row("", "queue with S3 notifications; empty means none is polled")
    sqs_endpoint: str = row("", "URL of an SQS-compatible service; empty means AWS")
    trainset_buckets: tuple[str, ...] = row((), "buckets of training sets; empty means none")
    max_trainset_bytes: int = row(64 << 30, "limit of a training set", unit="bytes", low=1)
