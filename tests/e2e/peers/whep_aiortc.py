"""Watches over WHEP with aiortc until enough was seen, leaves, and prints what was seen.

Usage: whep_aiortc.py '{"whep", "frames"}'
"""

import array
import asyncio
import json
import sys

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError

import counter
import signal_http
from seen import Seen


def note_picture(seen, frame):
    plane = frame.planes[0]
    luma, stride = memoryview(plane), plane.line_size
    number = counter.read(frame.width, frame.height, lambda y: luma[y * stride :])
    seen.picture(frame.width, frame.height, number)


def note_sound(seen, frame):
    samples = array.array("h", bytes(frame.planes[0]))
    seen.sound(frame.samples / frame.sample_rate * 1_000, max(map(abs, samples)))


async def pull(track, seen, enough):
    note = note_picture if track.kind == "video" else note_sound
    try:
        while not enough.is_set():
            note(seen, await track.recv())
            if seen.is_enough:
                enough.set()
    except MediaStreamError:
        enough.set()


async def watch(task):
    seen, enough, pulls = Seen(task), asyncio.Event(), []
    peer = RTCPeerConnection()
    for kind in ("video", "audio"):
        peer.addTransceiver(kind, direction="recvonly")
    peer.on("track", lambda track: pulls.append(asyncio.ensure_future(pull(track, seen, enough))))
    await peer.setLocalDescription(await peer.createOffer())
    sdp = peer.localDescription.sdp
    answer, session = await asyncio.to_thread(signal_http.offer, task["whep"], sdp)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await enough.wait()
    status = await asyncio.to_thread(signal_http.leave, session)
    seen.tell(left=status)
    await peer.close()
    await asyncio.gather(*pulls)


asyncio.run(watch(json.loads(sys.argv[1])))
