"""Publishes a clip over WHIP with GStreamer's webrtcbin: prints `live` once connected, goes on until
stdin ends, leaves with DELETE and prints its status.

Usage: whip_gstreamer.py '{"whip", "stream_key", "clip"}'
"""

import json
import sys
import threading

import gstreamer
import signal_http
import webrtcbin
from gi.repository import GLib, Gst, GstWebRTC

PIPELINE = """
    webrtcbin name=peer bundle-policy=max-bundle
    filesrc name=clip ! decodebin name=show
    show. ! queue ! clocksync ! videoconvert
        ! x264enc speed-preset=ultrafast tune=zerolatency key-int-max=60
        ! video/x-h264,profile=constrained-baseline
        ! rtph264pay config-interval=-1 aggregate-mode=zero-latency
        ! application/x-rtp,media=video,encoding-name=H264,payload=96 ! peer.
    show. ! queue ! clocksync ! audioconvert ! audioresample
        ! audio/x-raw,rate=48000,channels=2 ! opusenc ! rtpopuspay
        ! application/x-rtp,media=audio,encoding-name=OPUS,payload=97 ! peer.
"""


class Publisher:
    """One connection; the main loop ends with stdin."""

    def __init__(self, task):
        self.task, self.loop, self.session = task, GLib.MainLoop(), None
        self.pipeline = Gst.parse_launch(PIPELINE)
        self.pipeline.get_by_name("clip").set_property("location", task["clip"])
        self.peer = self.pipeline.get_by_name("peer")
        self.agent = webrtcbin.reach_loopback(self.peer)
        self.peer.connect("on-negotiation-needed", lambda _: self.negotiate())
        self.peer.connect("notify::connection-state", self.on_state)
        gstreamer.end_with_errors(self.pipeline)

    def publish(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        threading.Thread(target=self.wait_for_the_end, daemon=True).start()
        self.loop.run()
        print(signal_http.leave(self.session), flush=True)
        self.pipeline.set_state(Gst.State.NULL)

    def wait_for_the_end(self):
        sys.stdin.read()
        self.loop.quit()

    def negotiate(self):
        webrtcbin.negotiate(self.peer, self.exchange)

    def exchange(self, offer):
        url, key = self.task["whip"], self.task["stream_key"]
        answer, self.session = signal_http.offer(url, offer, key)
        return answer

    def on_state(self, *_):
        state = self.peer.get_property("connection-state")
        if state == GstWebRTC.WebRTCPeerConnectionState.CONNECTED:
            print("live", flush=True)


Publisher(json.loads(sys.argv[1])).publish()
