"""Watches over WHEP with GStreamer's webrtcbin until enough was seen, leaves, and prints what was
seen.

Usage: whep_gstreamer.py '{"whep", "frames"}'
"""

import json
import sys

import gstreamer
import signal_http
import webrtcbin
from gi.repository import Gst, GstWebRTC
from seen import Seen

VIDEO = (
    "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,"
    "packetization-mode=(string)1,profile-level-id=(string)42e01f,rtcp-fb-nack-pli=true"
)
AUDIO = (
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000,"
    "encoding-params=(string)2"
)


class Viewer(gstreamer.Decoder):
    """One connection; the main loop ends when enough was seen."""

    def __init__(self, task):
        super().__init__(Seen(task))
        self.task, self.session = task, None
        self.peer = Gst.ElementFactory.make("webrtcbin")
        self.peer.set_property("bundle-policy", "max-bundle")
        self.pipeline.add(self.peer)
        self.agent = webrtcbin.reach_loopback(self.peer)
        self.peer.connect("pad-added", self.on_track)

    def watch(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        way = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        for caps in (VIDEO, AUDIO):
            self.peer.emit("add-transceiver", way, Gst.Caps.from_string(caps))
        webrtcbin.negotiate(self.peer, self.exchange)
        self.run()
        self.seen.tell(left=signal_http.leave(self.session))

    def exchange(self, offer):
        answer, self.session = signal_http.offer(self.task["whep"], offer)
        return answer


Viewer(json.loads(sys.argv[1])).watch()
