"""GStreamer's webrtcbin: one offer and its answer."""

import gstreamer
from seen import fail

try:
    import gi

    for namespace in ("GstSdp", "GstWebRTC"):
        gi.require_version(namespace, "1.0")
except ValueError:
    fail(gstreamer.MISSING.format("WebRTC of GStreamer for Python"))
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402

gstreamer.need("webrtcbin", "nicesink", "dtlssrtpenc", "x264enc", "opusenc", "avdec_h264")


def reach_loopback(peer):
    """Makes this machine's own address a candidate; what is returned is to be kept.

    Without it libnice binds its sockets to the other interfaces, which do not reach it. The binding
    takes over the only reference to the agent.
    """
    agent = peer.get_property("ice-agent")
    agent.emit("add-local-ip-address", "127.0.0.1")
    return agent


def negotiate(peer, exchange):
    """Offers; `exchange` turns the text of the offer into that of the answer."""

    def on_offer(promise):
        # The reply owns the offer: both stay until the offer was used.
        reply = promise.get_reply()
        offer = reply.get_value("offer")
        peer.emit("set-local-description", offer, Gst.Promise.new())
        _, sdp = GstSdp.SDPMessage.new_from_text(exchange(offer.sdp.as_text()))
        answer = GstWebRTC.WebRTCSessionDescription.new(GstWebRTC.WebRTCSDPType.ANSWER, sdp)
        peer.emit("set-remote-description", answer, Gst.Promise.new())

    peer.emit("create-offer", None, Gst.Promise.new_with_change_func(on_offer))
