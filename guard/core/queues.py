"""The queue that each stage's messages go to."""

from collections.abc import Mapping

#: What compares, every few seconds, what is served with what may be. No stage is in it, so that no
#: upload, however slow to read, to scan or to load, can hold its worker.
WATCH = "watch"
#: What goes out to receivers of notifications and into tags of uploads: whatever they take, no scan
#: waits for it.
NOTIFY = "notify"
QUEUES = ("inspect", "scan", "publish", "control", "train", WATCH, NOTIFY)
QUEUE_OF: Mapping[str, str] = {
    "receive": "inspect",
    "inspect": "inspect",
    "detect": "scan",
    "purify": "scan",
    "decide": "control",
    "publish": "publish",
    "sift": "train",
    "retrain": "train",
}
