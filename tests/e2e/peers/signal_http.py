"""WHIP and WHEP over HTTP: an offer goes in, an answer comes out, a session is deleted."""

import urllib.request
from urllib.parse import urljoin

ANSWER_S_MAX = 10


def offer(url, sdp, key=None):
    """The answer, and where the session is."""
    headers = {"Content-Type": "application/sdp"}
    if key:
        headers["Authorization"] = f"Bearer {key}"
    request = urllib.request.Request(url, data=sdp.encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as response:
        return response.read().decode(), urljoin(url, response.headers["Location"])


def leave(session):
    """The status of its DELETE."""
    request = urllib.request.Request(session, method="DELETE")
    with urllib.request.urlopen(request, timeout=ANSWER_S_MAX) as response:
        return response.status
