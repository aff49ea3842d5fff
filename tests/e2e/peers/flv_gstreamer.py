"""Watches over HTTP-FLV with GStreamer until enough was seen, leaves, and prints what was seen.

Usage: flv_gstreamer.py '{"flv", "frames"}'
"""

import json
import sys

import gstreamer
from seen import Seen

task = json.loads(sys.argv[1])
gstreamer.watch_flv(Seen(task), "souphttpsrc", task["flv"], **{"is-live": True})
