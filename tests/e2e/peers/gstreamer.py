"""GStreamer in general: its start, its end in case of an error, and what is decoded of a stream."""

import array

import counter
from seen import fail

MISSING = "no {}: run scripts/setup.sh --test"
try:
    import gi

    for namespace in ("Gst", "GstApp"):
        gi.require_version(namespace, "1.0")
except (ImportError, ValueError):
    fail(MISSING.format("GStreamer for Python"))
from gi.repository import GLib, Gst  # noqa: E402

Gst.init(None)
RAW = {"video": "video/x-raw,format=I420", "audio": "audio/x-raw,format=S16LE"}
CONVERTERS = {"video": "videoconvert", "audio": "audioconvert"}


def need(*elements):
    for element in elements:
        if not Gst.ElementFactory.find(element):
            fail(MISSING.format(element))


def end_with_errors(pipeline):
    bus = pipeline.get_bus()
    bus.add_signal_watch()
    bus.connect("message::error", lambda _, message: fail(message.parse_error()[0].message))


def watch_flv(seen, element, location, **settings):
    """Watches what a source gives as FLV."""
    need(element, "flvdemux", "avdec_h264", "avdec_aac")
    decoder = Decoder(seen)
    source, demuxer = decoder.add(element), decoder.add("flvdemux")
    source.set_property("location", location)
    for name, value in settings.items():
        source.set_property(name, value)
    demuxer.connect("pad-added", decoder.on_track)
    source.link(demuxer)
    decoder.run()
    seen.tell()


class Decoder:
    """Decodes what it is handed, and notes it, until enough was seen; then the main loop ends."""

    def __init__(self, seen):
        self.seen, self.loop = seen, GLib.MainLoop()
        self.pipeline = Gst.Pipeline.new()
        end_with_errors(self.pipeline)

    def run(self):
        self.pipeline.set_state(Gst.State.PLAYING)
        self.loop.run()
        self.pipeline.set_state(Gst.State.NULL)

    def add(self, name):
        element = Gst.ElementFactory.make(name)
        self.pipeline.add(element)
        element.sync_state_with_parent()
        return element

    def on_track(self, _, pad):
        if pad.get_direction() == Gst.PadDirection.SRC:
            # Each in its own thread: those of one demuxer would wait for each other.
            queue, decoder = self.add("queue"), self.add("decodebin")
            decoder.connect("pad-added", self.on_decoded)
            queue.link(decoder)
            pad.link(queue.get_static_pad("sink"))

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
