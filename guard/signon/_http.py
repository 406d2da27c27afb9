"""Asking the provider: bounded in time and size, without redirects."""

import json
import ssl
import time
from collections.abc import Mapping
from functools import cache
from typing import Any

import httpx

from guard.core.errors import Unavailable

SECONDS = 5.0  # of each wait; a whole answer takes at most twice as long
MAX_BYTES = 256 << 10


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()  # reads all certificates, which takes longer than an answer


class ProviderAway(Unavailable):
    """The identity provider does not answer as it must."""

    code = "provider_away"


def ask(
    url: str, form: Mapping[str, str] | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, Any]]:
    """The status and the JSON object of an answer; a form is posted.

    Raises:
        ProviderAway: there is no answer in time, or none that is a JSON object of bounded size.
    """
    until = time.monotonic() + 2 * SECONDS
    parts, size = [], 0
    try:
        with (
            httpx.Client(verify=_tls(), timeout=SECONDS, follow_redirects=False) as client,
            client.stream(
                "GET" if form is None else "POST",
                url,
                data=form,
                headers={"Accept": "application/json", **(headers or {})},
            ) as answer,
        ):
            for part in answer.iter_bytes():
                parts.append(part)
                size += len(part)
                if size > MAX_BYTES or time.monotonic() > until:
                    raise ProviderAway("The identity provider's answer is too large or too slow.")
            found = json.loads(b"".join(parts))
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise ProviderAway(
            f"The identity provider does not answer ({type(error).__name__}); try again."
        ) from error
    except (ValueError, RecursionError) as error:
        raise ProviderAway("The identity provider's answer is not JSON.") from error
    if not isinstance(found, dict):
        raise ProviderAway("The identity provider's answer is not a JSON object.")
    return answer.status_code, found
