"""Files that lie beside a model and are none, judged by their names."""

import re

_COMPANIONS = re.compile(
    r"(^|/)(README|LICENSE|LICENCE|NOTICE|COPYING|CHANGELOG|CITATION|Dockerfile|Makefile)[^/]*$"
    r"|(^|/)\.[^/]+$"  # .gitattributes, .DS_Store
    r"|(^|/)(training_args\.bin|(optimizer|scheduler|scaler)\.(pt|bin)|rng_state[^/]*\.pth)$"
    r"|(^|/)events\.out\.tfevents[^/]*$"
    r"|\.(md|rst|txt|json|jsonl|ya?ml|toml|cfg|ini|csv|tsv|log|html?|css|pdf|png|jpe?g|gif|svg|webp"
    r"|bmp|tiff?|mp4|py|ipynb|sh|sha256|md5)$",
    re.IGNORECASE,
)


def is_companion(path: str) -> bool:
    """Whether nobody keeps weights under such a name: text, images, settings, a trainer's state."""
    return _COMPANIONS.search(path) is not None
