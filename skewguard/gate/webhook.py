"""A message to people: what Slack's incoming webhooks take, and most others."""

from __future__ import annotations

import http.client
import json
import urllib.request

from skewguard.errors import SkewguardError

_SECONDS = 5.0


def check_webhook(url: str) -> None:
    """Raise `SkewguardError` for what no message can be posted to."""
    if not url.startswith(("http://", "https://")):
        raise SkewguardError(f"--webhook: expected an http(s) URL, got {url!r}")


def post(url: str, text: str) -> str:
    """Post `text` as `{"text": ...}`; empty, or a sentence on why it was not taken. Raises as `check_webhook` does."""
    check_webhook(url)
    body = json.dumps({"text": text}).encode()
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310  (checked above)
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS):  # noqa: S310
            return ""
    except (OSError, http.client.HTTPException) as error:  # the latter: what answers is no HTTP
        return f"the webhook did not take it: {error}"
