"""Watches over WHEP with GStreamer's webrtcbin until enough was seen, leaves, and prints what was
seen.

Usage: whep_gstreamer.py '{"whep", "frames"}'
"""

import array
import json
import sys

import counter
import signal_http
import webrtcbin
from gi.repository import GLib, Gst, GstWebRTC
from seen import Seen

VIDEO = (
    "application/x-rtp,media=video,encoding-name=H264,payload=96,clock-rate=90000,"
    "packetization-mode=(string)1,profile-level-id=(string)42e01f,rtcp-fb-nack-pli=true"
)
AUDIO = (
    "application/x-rtp,media=audio,encoding-name=OPUS,payload=97,clock-rate=48000,"
    "encoding-params=(string)2"
)
RAW = {"video": "video/x-raw,format=I420", "audio": "audio/x-raw,format=S16LE"}
CONVERTERS = {"video": "videoconvert", "audio": "audioconvert"}


class Viewer:
    """One connection; the main loop ends when enough was seen."""

    def __init__(self, task):
        self.task, self.seen, self.loop = task, Seen(task), GLib.MainLoop()
        self.session = None
        self.pipeline = Gst.Pipeline.new()
        self.peer = Gst.ElementFactory.make("webrtcbin")
        self.peer.set_property("bundle-policy", "max-bundle")
        self.pipeline.add(self.peer)
        self.agent = webrtcbin.reach_loopback(self.peer)
        self.peer.connect("pad-added", self.on_track)
        webrtcbin.end_with_errors(self.pipeline)

    def watch(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        way = GstWebRTC.WebRTCRTPTransceiverDirection.RECVONLY
        for caps in (VIDEO, AUDIO):
            self.peer.emit("add-transceiver", way, Gst.Caps.from_string(caps))
        webrtcbin.negotiate(self.peer, self.exchange)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)
        self.seen.tell(left=signal_http.leave(self.session))

    def exchange(self, offer):
        answer, self.session = signal_http.offer(self.task["whep"], offer)
        return answer

    def on_track(self, _, pad):
        if pad.get_direction() == Gst.PadDirection.SRC:
            decoder = self.add("decodebin")
            decoder.connect("pad-added", self.on_decoded)
            pad.link(decoder.get_static_pad("sink"))

    def on_decoded(self, _, pad):
        kind = pad.get_current_caps().get_structure(0).get_name().split("/")[0]
        converter, sink = self.add(CONVERTERS[kind]), self.add("appsink")
        sink.set_property("caps", Gst.Caps.from_string(RAW[kind]))
        # Frames are counted as they come, not when they are to be shown.
        sink.set_property("sync", False)
        sink.set_property("emit-signals", True)
        sink.connect("new-sample", self.on_picture if kind == "video" else self.on_sound)
        converter.link(sink)
        pad.link(converter.get_static_pad("sink"))

    def add(self, name):
        element = Gst.ElementFactory.make(name)
        self.pipeline.add(element)
        element.sync_state_with_parent()
        return element

    def on_picture(self, sink):
        sample = sink.emit("pull-sample")
        form, buffer = sample.get_caps().get_structure(0), sample.get_buffer()
        width, height = form.get_value("width"), form.get_value("height")
        # Lines of I420 are padded to four bytes.
        stride = -(-width // 4) * 4
        line = lambda y: buffer.extract_dup(y * stride, width)  # noqa: E731
        self.seen.picture(width, height, counter.read(width, height, line))
        return self.go_on()

    def on_sound(self, sink):
        sample = sink.emit("pull-sample")
        buffer = sample.get_buffer()
        samples = array.array("h", buffer.extract_dup(0, buffer.get_size()))
        self.seen.sound(buffer.duration / 1e6, max(map(abs, samples)))
        return self.go_on()

    def go_on(self):
        if self.seen.is_enough:
            self.loop.quit()
        return Gst.FlowReturn.OK


Viewer(json.loads(sys.argv[1])).watch()
