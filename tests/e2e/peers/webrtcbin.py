"""GStreamer's webrtcbin: one offer, its answer, and the end of the pipeline in case of an error."""

from seen import fail

MISSING = "no {}: run scripts/setup.sh --test"
try:
    import gi

    for namespace in ("Gst", "GstApp", "GstSdp", "GstWebRTC"):
        gi.require_version(namespace, "1.0")
except (ImportError, ValueError):
    fail(MISSING.format("GStreamer for Python"))
from gi.repository import Gst, GstSdp, GstWebRTC  # noqa: E402

Gst.init(None)
for element in ("webrtcbin", "nicesink", "dtlssrtpenc", "x264enc", "opusenc", "avdec_h264"):
    if not Gst.ElementFactory.find(element):
        fail(MISSING.format(element))


def reach_loopback(peer):
    """Makes this machine's own address a candidate; what is returned is to be kept.

    Without it libnice binds its sockets to the other interfaces, which do not reach it. The binding
    takes over the only reference to the agent.
    """
    agent = peer.get_property("ice-agent")
    agent.emit("add-local-ip-address", "127.0.0.1")
    return agent


def end_with_errors(pipeline):
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message::error", lambda _, message: fail(message.parse_error()[0].message))


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
