"""Watches over RTMP with GStreamer until enough was seen, leaves, and prints what was seen.

Usage: rtmp_gstreamer.py '{"rtmp", "frames"}'
"""

import json
import sys

import gstreamer
from seen import Seen

task = json.loads(sys.argv[1])
gstreamer.watch_flv(Seen(task), "rtmp2src", task["rtmp"])
