"""Publishes a clip over WHIP with aiortc: prints `live` once connected, goes on until stdin ends,
leaves with DELETE and prints its status.

Usage: whip_aiortc.py '{"whip", "stream_key", "clip"}'
"""

import asyncio
import json
import sys

from aiortc import RTCPeerConnection, RTCSessionDescription
from aiortc.contrib.media import MediaPlayer

import signal_http


async def publish(task):
    peer, connected = RTCPeerConnection(), asyncio.Event()
    player = MediaPlayer(task["clip"], loop=True)
    for track in (player.audio, player.video):
        peer.addTransceiver(track, direction="sendonly")

    @peer.on("connectionstatechange")
    def note():
        if peer.connectionState == "connected":
            connected.set()

    await peer.setLocalDescription(await peer.createOffer())
    sdp, key = peer.localDescription.sdp, task["stream_key"]
    answer, session = await asyncio.to_thread(signal_http.offer, task["whip"], sdp, key)
    await peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
    await connected.wait()
    print("live", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    print(await asyncio.to_thread(signal_http.leave, session), flush=True)
    await peer.close()


asyncio.run(publish(json.loads(sys.argv[1])))
